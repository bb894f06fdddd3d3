# B-098: events of a watch that are lost, repeated or from the past
# The record of etcd's own robustness tests: after partitions, compactions or pauses of a member a watch skipped, repeated or went back; a
# paused member answered linearizable reads from the past.
link https://github.com/etcd-io/etcd/issues/15271
link https://github.com/etcd-io/etcd/issues/17247
link https://github.com/etcd-io/etcd/issues/18089
link https://github.com/etcd-io/etcd/issues/20418
stopped-by R60
cluster n1 n2 n3
at 20s watch-gap leader for=6s
at 22s watch-gap replica for=10s
at 34s watch-repeat leader
at 36s watch-repeat replica
at 40s freeze-etcd follower for=6s
at 50s freeze-etcd leader for=3s
at 60s stale-reads any for=4s
at 70s compact
at 71s watch-cancel any
end 80s
expect no-dual-primary
expect lost=0
expect healthy within=40s
