# M-07: the host of the primary is lost
# Patroni 4.1.5: 25 s without writes, 30 s behind HAProxy; an acknowledged write lost.
cluster n1 n2 n3 use_pg_rewind=on remove_data_directory_on_diverged_timelines=on
router r1
client c1
client c2 via=r1
at 20s power-loss leader back=20s
end 45s
expect no-dual-primary
expect outage<=6500ms client=c1
expect promotions<=1
expect healthy within=60s
