# F-51: a switchover in quorum mode where no standby has a vote
# Without votes the `sync` key names the primary alone. It handed the lock over all the same, to a replica that might not take it, and nobody led for
# five seconds.
stopped-by candidate-unfit
cluster n1 n2 n3 synchronous_mode=quorum
node n2 nosync=on bootstrap=off
node n3 nosync=on bootstrap=off
at 20s switchover to=n2
end 40s
expect no-failover
expect no-dual-primary
expect promotions<=0
expect outage<=1s
