# F-03: the creator of a cluster is cut off before it has told its identity
# Found by the simulation (FOUND.md 3): a second cluster was created beside one that had acknowledged writes for half a minute.
cluster n1 n2 n3
node n2 joins=6s
node n3 joins=6s
at 4s cut n1 etcd way=back for=15s
end 60s
expect no-dual-primary
expect writes within=60s
