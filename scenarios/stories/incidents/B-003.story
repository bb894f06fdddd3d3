# B-003: an etcd member that was cut off answers from the past
# When a network split healed, an etcd member still served the old keyspace while an election made writes fail elsewhere. The
# primary's client moved to that member, read that another node leads, and the primary was demoted for nothing.
link https://github.com/patroni/patroni/issues/3314
stopped-by R60
cluster n1 n2 n3
at 20s switchover
at 30s cut etcd:e1 etcd:e2 for=6s
at 30s cut etcd:e1 etcd:e3 for=6s
at 35s stale-reads e1 for=6s
at 38s elect-etcd outage=500ms
end 50s
expect promotions<=1
expect no-dual-primary
expect lost=0
expect healthy within=30s
