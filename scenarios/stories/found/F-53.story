# F-53: a switchover to a replica beside one of a higher failover_priority
# The candidate let the other go first, and that one left the lock to the candidate: nobody led for five seconds. (Seed 17001194.)
stopped-by R60
cluster n1 n2 n3
node n2 bootstrap=off
node n3 failover_priority=5 bootstrap=off
at 20s switchover to=n2
at 20s expect primary is=n2 within=2s
end 40s
expect no-dual-primary
expect promotions<=1
expect lost=0
expect healthy within=60s
