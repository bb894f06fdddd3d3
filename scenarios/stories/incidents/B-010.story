# B-010: no single error of etcd during a renewal demotes
# An election in the midst of a keep-alive came back as "unknown" instead of "unavailable"; the client did not try another member, and
# a healthy primary was demoted. Each error that etcd has is told to the leader once here.
link https://github.com/patroni/patroni/issues/3407
stopped-by R60
cluster n1 n2 n3
at 20s etcd-error leader unknown rpc=keepalive
at 22s etcd-error leader unavailable rpc=keepalive
at 24s etcd-error leader no-leader rpc=keepalive
at 26s etcd-error leader leader-changed rpc=keepalive
at 28s etcd-error leader not-leader rpc=keepalive
at 30s etcd-error leader timeout rpc=keepalive
at 32s etcd-error leader timeout-leader-fail rpc=keepalive
at 34s etcd-error leader timeout-connection-lost rpc=keepalive
at 36s etcd-error leader stopped rpc=keepalive
at 38s etcd-error leader unhealthy rpc=keepalive
at 40s etcd-error leader too-many-requests rpc=keepalive
at 42s etcd-error leader corrupt rpc=keepalive
at 44s etcd-error leader internal rpc=keepalive
at 46s etcd-error leader deadline-exceeded rpc=keepalive
at 48s etcd-error leader canceled rpc=keepalive
at 50s elect-etcd outage=700ms
end 60s
expect no-failover
expect lost=0
expect healthy within=20s
