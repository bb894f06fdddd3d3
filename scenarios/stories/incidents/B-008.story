# B-008: ttl changes and the leader key stays on the old lease
# After a change of ttl the client held a new lease, but the leader key hung on the old one, which ran out although every
# keep-alive succeeded.
link https://github.com/patroni/patroni/pull/2693
stopped-by R60
cluster n1 n2 n3
at 20s set ttl 10
at 30300ms set ttl 4
at 40700ms set ttl 15
at 55s set ttl 5
end 70s
expect no-failover
expect lost=0
expect healthy within=20s
