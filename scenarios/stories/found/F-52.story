# F-52: a switchover just after etcd was away
# Whoever had granted the leader to stay kept its promise for the whole ttl, though that leader itself had given the lock back meanwhile: nobody
# led for five seconds. (Seed 17000324.)
stopped-by R71
cluster n1 n2 n3 failsafe_mode=on ttl=30 loop_wait=10 retry_timeout=10
node n2 bootstrap=off
node n3 bootstrap=off
at 30s no-quorum for=20s
at 52s switchover to=n2
at 52s expect primary is=n2 within=3s
end 80s
expect no-dual-primary
expect promotions<=1
expect lost=0
expect healthy within=60s
