# F-49: a switchover is asked for just after a replica has joined
# With the loop_wait that most people have the leader's last look at PostgreSQL was up to ten seconds old, and knew nothing of the new replica. The
# wish was refused and taken away. (Seen on containers, A-3 and A-5.)
stopped-by R20
cluster n1 n2 ttl=30 loop_wait=10 retry_timeout=10
node n2 bootstrap=off joins=20s
at 26s switchover
at 26s expect primary is=n2 within=3s
end 45s
expect no-dual-primary
expect promotions<=1
expect lost=0
expect healthy within=60s
