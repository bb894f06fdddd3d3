# M-01: the agent of the primary is stopped in order
# Patroni 4.1.5: 2.4 s without writes, 8 to 10 s behind HAProxy, whatever the ttl.
cluster n1 n2 n3 use_pg_rewind=on remove_data_directory_on_diverged_timelines=on
router r1
client c1
client c2 via=r1
at 20s stop-agent leader back=3s
end 35s
expect no-dual-primary
expect lost=0
expect promotions<=1
expect outage<=1s client=c1
expect healthy within=30s
