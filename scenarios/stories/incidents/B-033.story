# B-033: the former leader's failover_priority is no veto
# A candidate with as much WAL deferred to the former leader, which has a higher priority and could not take the lock.
link https://github.com/patroni/patroni/pull/3297
stopped-by R71
cluster n1 n2 n3 failsafe_mode=off remove_data_directory_on_diverged_timelines=on
node n1 failover_priority=5
node n2 bootstrap=off
node n3 bootstrap=off
at 20s pace c1 every=forever
at 21s cut n1 etcd for=30s
at 21s expect primary within=15s
end 60s
expect no-dual-primary
expect healthy within=60s
