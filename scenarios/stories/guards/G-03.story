# G-03: a shorter ttl is announced, and its confirmation is lost
# The others count the short right from what the leader wrote; the leader may not go on to count the long one.
cluster n1 n2 n3 ttl=15 failsafe_mode=off remove_data_directory_on_diverged_timelines=on
node n2 bootstrap=off
node n3 bootstrap=off
at 20s lose n1 reply rpc=txn count=0 for=15s
at 20100ms set ttl 3
at 25s cut n1 etcd for=25s
end 60s
expect no-dual-primary
expect healthy within=60s
