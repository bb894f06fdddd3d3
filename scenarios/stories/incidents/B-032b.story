# B-032b: the lease of a healthy leader is gone early
# As B-032, by an expiry that came too soon: the leader reaches etcd and takes the lock again itself.
link https://github.com/patroni/patroni/issues/2070
stopped-by R62
cluster n1 n2 n3
at 20s lease-early leader
at 30s lease-early leader
at 40s lease-early leader
end 50s
expect no-failover
expect lost=0
expect healthy within=20s
