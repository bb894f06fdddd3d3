# M-12: the leader of etcd is killed
# Patroni 4.1.5: nobody notices.
cluster n1 n2 n3 use_pg_rewind=on remove_data_directory_on_diverged_timelines=on
router r1
client c1
client c2 via=r1
at 20s kill-etcd leader back=10s
end 35s
expect no-dual-primary
expect lost=0
expect no-failover
expect outage<=500ms client=c1
expect healthy within=30s
