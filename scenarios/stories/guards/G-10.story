# G-10: a promise is kept while the leader lives by it
# The key has run out in etcd, and whoever granted the leader its stay could take the lock at once.
stopped-by failsafe-promise
returns-with GrantWithoutPromise
cluster n1 n2 n3 remove_data_directory_on_diverged_timelines=on
node n2 bootstrap=off
node n3 bootstrap=off
at 20s cut n1 etcd for=40s
at 35s cut n1 peers for=30s
end 75s
expect no-dual-primary
expect healthy within=60s
