# B-074b: a call to etcd that never returns
# A call without a deadline blocked the sentinel's loop for good.
link https://github.com/sorintlab/stolon/pull/659
stopped-by R60
cluster n1 n2 n3
at 20s delay leader by=24h rpc=txn
at 30s delay leader by=24h rpc=keepalive
at 40s delay leader by=24h rpc=range
at 50s delay leader by=24h rpc=put
end 60s
expect no-failover
expect healthy within=30s
