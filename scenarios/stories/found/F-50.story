# F-50: a switchover to a replica that has joined seconds after another
# With the loop_wait that most people have the primary wrote the failsafe list anew, and made slots, five and ten seconds after it last did. A replica that
# joined in between did not stream, and whoever was handed the lock before the list named it did not take it: nobody led for five seconds.
# (Seen on containers, A-3.)
stopped-by R20
cluster n1 n2 n3 ttl=30 loop_wait=10 retry_timeout=10
node n2 bootstrap=off joins=20s
node n3 bootstrap=off joins=20500ms
at 24s switchover to=n3
at 24s expect primary is=n3 within=3s
end 45s
expect no-dual-primary
expect promotions<=1
expect lost=0
expect healthy within=60s
