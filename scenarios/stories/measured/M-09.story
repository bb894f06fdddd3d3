# M-09: the primary is cut off from etcd only
# Patroni 4.1.5: 12.5 s without writes, 15 to 17 s behind HAProxy.
cluster n1 n2 n3 use_pg_rewind=on remove_data_directory_on_diverged_timelines=on
router r1
client c1
client c2 via=r1
at 20s cut leader etcd for=20s
end 45s
expect no-dual-primary
expect lost=0
expect no-failover
expect outage<=500ms client=c1
expect healthy within=60s
