# G-11: a member that the leader does not ask returns
# Its key has been gone for longer than the leader keeps it on the failsafe list, so a leader without etcd lives on without its word; it must leave the free lock alone.
stopped-by not-in-failsafe
returns-with FailsafeListUnread
cluster n1 n2 n3 remove_data_directory_on_diverged_timelines=on
node n2 bootstrap=off
node n3 bootstrap=off
at 15s kill-agent n3 back=25s
at 36s cut n1 etcd for=30s
at 37s cut n1 n3 for=30s
end 78s
expect no-dual-primary
expect healthy within=60s
