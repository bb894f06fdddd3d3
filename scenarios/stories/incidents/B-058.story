# B-058: every write to etcd whose fate is not known
# A write was applied and its answer lost; the retry met its own effect, took it for another holder's, and the leader stepped down.
# Found with Kubernetes objects; every store has lost requests, lost replies and repeated ones.
link https://github.com/patroni/patroni/issues/3344
link https://github.com/patroni/patroni/issues/3174
link https://github.com/patroni/patroni/issues/3559
stopped-by R60
cluster n1 n2 n3
at 20s lose leader reply rpc=txn
at 23s lose leader request rpc=txn
at 26s lose leader twice rpc=txn
at 29s lose leader reply rpc=keepalive
at 32s lose leader request rpc=keepalive
at 35s lose leader twice rpc=keepalive
at 38s lose leader reply rpc=put
at 41s lose leader request rpc=put
at 44s lose leader reply rpc=range
at 47s lose replica reply rpc=txn
at 50s lose replica reply rpc=put
end 60s
expect no-failover
expect lost=0
expect healthy within=20s
