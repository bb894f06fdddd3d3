# B-088: the view of one replica is never enough to promote
# After a part of the network failed, one replica of several was found running as primary beside the original one.
link https://github.com/EnterpriseDB/repmgr/issues/439
stopped-by R73
cluster n1 n2 n3 n4 n5
node n2 bootstrap=off
node n3 bootstrap=off
node n4 bootstrap=off
node n5 bootstrap=off
at 20s split n5 bridge=etcd for=20s
at 50s isolate n4 for=20s
end 80s
expect no-failover
expect lost=0
expect healthy within=40s
