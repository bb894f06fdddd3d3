# G-08: a member that diverged is the last one left
# It went on past the fork while it was isolated; when all others are gone, its WAL is not the cluster's.
returns-with AncestryUnheeded
cluster n1 n2 n3 failsafe_mode=off maximum_lag_on_failover=1073741824
node n2 bootstrap=off
node n3 bootstrap=off
at 20s pace c1 every=200ms
at 20s isolate n1 for=15s
at 50s power-loss n2
at 50s power-loss n3
at 80s expect no-primary
end 85s
expect no-dual-primary
expect writes within=60s
