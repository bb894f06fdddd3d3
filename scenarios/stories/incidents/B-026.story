# B-026: something streams under the primary's own name
# pg_receivewal called itself like the primary. The primary made itself its synchronous replica; a switchover was impossible, and its
# shutdown waited for itself.
link https://github.com/patroni/patroni/issues/3111
requires synchronous_mode
cluster n1 n2 n3 synchronous_mode=on
at 20s rogue-standby leader name=n1 for=30s
at 22s switchover
end 60s
expect no-dual-primary
expect lost=0
expect healthy within=40s
