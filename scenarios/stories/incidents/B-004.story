# B-004: a primary and its own etcd member are cut off together
# The lock could not be renewed, the primary asked the etcd member on its own host, which was cut off with it, and read that it was
# still the leader, with a negative ttl. It went on as primary while another node was promoted.
link https://github.com/patroni/patroni/pull/316
stopped-by R01
returns-with RenewWithoutTransaction
cluster n1 n2 n3 failsafe_mode=off remove_data_directory_on_diverged_timelines=on
etcd e1@n1 e2@n2 e3@n3
at 20s isolate leader for=25s
at 21s expect writes within=11s
end 50s
expect no-dual-primary
expect healthy within=60s
