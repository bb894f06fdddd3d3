# R6: people, at the wrong time
# A switchover while the primary dies, a rebuild of the candidate, a change of ttl in a failover, a promotion by hand.
cluster n1 n2 n3 remove_data_directory_on_diverged_timelines=on
at 20s switchover
at 20500ms kill-postgres leader
at 45s reinit candidate
at 45200ms switchover
at 70s power-loss leader back=15s
at 72s set ttl 3
at 74s set ttl 8
at 100s restart leader
at 100300ms switchover
at 145s stop-by-hand leader
at 160s failover to=replica
end 190s
expect no-dual-primary
expect healthy within=90s
