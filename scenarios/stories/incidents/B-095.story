# B-095: a deposed etcd leader revokes leases that live
# The etcd leader hung in a flush; another was elected, and clients kept their leases alive there. The old one woke, took them for expired, and its
# revocations were forwarded and applied.
link https://github.com/etcd-io/etcd/issues/15247
link https://github.com/etcd-io/etcd/issues/12528
stopped-by R62
returns-with RenewWithoutTransaction
cluster n1 n2 n3
at 20s depose-etcd for=8s
at 40s lease-early leader
end 60s
expect no-dual-primary
expect lost=0
expect healthy within=40s
