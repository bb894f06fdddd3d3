# R8: names, tags, priorities and cascades
# A large cluster of unlike members: one that never leads, one that is preferred, a cascade, a delayed replica.
cluster db-A db.B "leader" n4 n5 remove_data_directory_on_diverged_timelines=on ttl=7
node db-A failover_priority=3
node "leader" nofailover=on bootstrap=off
node n4 replicatefrom=db.B bootstrap=off
node n5 failover_priority=2 bootstrap=off
at 20s switchover
at 40s power-loss leader back=20s
at 41s expect writes within=14s
at 80s cut n4 db.B for=15s
at 100s power-loss leader back=20s
end 140s
expect no-dual-primary
expect never-primary "leader"
expect healthy within=90s
