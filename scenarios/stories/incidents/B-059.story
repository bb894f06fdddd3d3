# B-059: how long it takes to see that a primary is gone
# Where keys have no expiry each node times the leader itself, and rounds out of phase added up to a whole loop to the detection. The bound here
# is the right of the dead one, the round in which it is seen, and the promotion.
link https://github.com/patroni/patroni/pull/1515
stopped-by R71
cluster n1 n2 n3 remove_data_directory_on_diverged_timelines=on
at 20s power-loss leader back=20s
at 21s expect writes within=8s
end 50s
expect no-dual-primary
expect outage<=9s
expect healthy within=60s
