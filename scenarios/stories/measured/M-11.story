# M-11: etcd has no quorum for 45 s
# Patroni 4.1.5: no writes from about 29 s on, none lost; with failsafe_mode, nothing.
cluster n1 n2 n3 use_pg_rewind=on remove_data_directory_on_diverged_timelines=on
router r1
client c1
client c2 via=r1
at 20s no-quorum for=45s
end 70s
expect no-dual-primary
expect lost=0
expect no-failover
expect outage<=500ms client=c1
expect healthy within=30s
