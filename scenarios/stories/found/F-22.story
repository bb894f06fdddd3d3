# F-22: the lock comes late to a node that creates the cluster
# Found by the simulation (FOUND.md 22): it went on trying to acquire its own key, and the renewal never got its turn.
cluster n1 n2 n3
at 100ms delay any by=3s rpc=txn count=2
at 1s lose any reply rpc=txn count=2
end 20s
expect no-dual-primary
expect healthy within=100s
