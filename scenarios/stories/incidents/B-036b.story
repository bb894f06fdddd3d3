# B-036b: etcd refuses writes in a pause
# The paused half of B-036: nobody touches a paused primary because of it.
link https://github.com/patroni/patroni/issues/659
stopped-by R10
cluster n1 n2 n3
at 20s pause for=50s
at 30s read-only for=20s
end 80s
expect no-failover
expect lost=0
expect healthy within=60s
