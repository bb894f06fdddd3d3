# F-12: the race to create the cluster
# Found by the simulation (FOUND.md 12): a node that lost the race followed the winner in vain for ever.
cluster n1 n2 n3 n4 n5
at 100ms lose any reply rpc=txn count=3
at 900ms elect-etcd outage=400ms
end 20s
expect no-dual-primary
expect healthy within=100s
