# B-011: failsafe is entered wherever the loss of etcd strikes
# All of etcd stopped, and the error came from the discovery of members instead of from a request; it was of another type, which the
# loop did not take for "etcd is gone", so that failsafe was skipped and the primary demoted. Here etcd goes away at each kind of call.
link https://github.com/patroni/patroni/issues/3403
stopped-by R61
cluster n1 n2 n3
at 20s when renew on=leader do no-quorum for=10s
at 45s when member on=leader do no-quorum for=10s
at 70s when read on=leader do no-quorum for=10s
at 95s when probe on=leader do no-quorum for=10s
end 120s
expect no-failover
expect lost=0
expect healthy within=30s
