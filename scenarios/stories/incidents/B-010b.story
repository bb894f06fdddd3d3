# B-010b: no single error of etcd to a transaction demotes
# As B-010, for the transaction that confirms the lock, with some that had their effect all the same.
link https://github.com/patroni/patroni/issues/3407
stopped-by R60
cluster n1 n2 n3
at 20s etcd-error leader unknown rpc=txn
at 22s etcd-error leader unavailable rpc=txn applied=on
at 24s etcd-error leader no-leader rpc=txn
at 26s etcd-error leader leader-changed rpc=txn applied=on
at 28s etcd-error leader timeout rpc=txn applied=on
at 30s etcd-error leader timeout rpc=txn
at 32s etcd-error leader timeout-leader-fail rpc=txn applied=on
at 34s etcd-error leader too-many-requests rpc=txn
at 36s etcd-error leader internal rpc=txn
at 38s etcd-error leader deadline-exceeded rpc=txn applied=on
at 40s etcd-error leader canceled rpc=txn applied=on
end 50s
expect no-failover
expect lost=0
expect healthy within=20s
