# B-013: failsafe over a slow network
# The bound on the question to a member was fixed at two seconds. A latency of five made etcd unreachable and each answer late: the
# primary was demoted although every replica would have agreed. Here the latency is as much as a ttl of 15 s bears.
link https://github.com/patroni/patroni/issues/3550
stopped-by R61
cluster n1 n2 n3 ttl=15 retry_timeout=5
at 20s slow-link all all by=600ms least=600ms for=60s
at 30s cut all etcd for=20s
end 80s
expect no-failover
expect healthy within=40s
