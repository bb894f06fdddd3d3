# M-02: a switchover
# Patroni 4.1.5: 2.4 to 8.5 s without writes, 5.5 to 12 s behind HAProxy.
cluster n1 n2 n3 use_pg_rewind=on remove_data_directory_on_diverged_timelines=on
router r1
client c1
client c2 via=r1
at 20s switchover
end 35s
expect no-dual-primary
expect lost=0
expect promotions<=1
expect outage<=1s client=c1
expect healthy within=30s
