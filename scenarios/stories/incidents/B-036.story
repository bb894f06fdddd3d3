# B-036: etcd answers reads and refuses writes
# During a maintenance only reads worked. A primary that could not write its key went on, or a paused one was set read-only.
link https://github.com/patroni/patroni/issues/659
stopped-by R60
cluster n1 n2 n3
at 20s read-only for=30s
end 70s
expect no-failover
expect lost=0
expect healthy within=60s
