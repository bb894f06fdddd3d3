# F-54: the standby that commits wait for is gone
# With the loop_wait that most people have the primary looked at its standbys every ten seconds, and commits waited as long for one that was gone
# before another was chosen.
stopped-by R60
cluster n1 n2 n3 synchronous_mode=on ttl=30 loop_wait=10 retry_timeout=10
node n2 bootstrap=off
node n3 bootstrap=off
at 33s kill-agent n2
at 33s kill-postgres n2
end 60s
expect no-failover
expect no-dual-primary
expect outage<=3s
expect lost=0
