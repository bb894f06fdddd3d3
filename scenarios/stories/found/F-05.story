# F-05: etcd comes back after a long outage under failsafe
# Found by the simulation (FOUND.md 5): the lock was never taken again, and the grants went on for ever.
stopped-by R61
cluster n1 n2 n3
at 20s no-quorum for=30s
at 50s expect decides R60 within=15s
end 75s
expect no-failover
expect lost=0
expect healthy within=30s
