# G-02: a free lock, and nobody who remembers the last reign
# As G-01, and the agents of the replicas begin anew just then: who has seen nothing must assume the worst.
returns-with NewcomerDoesNotWait
cluster n1 n2 n3 failsafe_mode=off remove_data_directory_on_diverged_timelines=on
node n2 bootstrap=off
node n3 bootstrap=off
at 20s cut n1 etcd for=20s
at 20010ms kill-agent n2 back=100ms
at 20010ms kill-agent n3 back=100ms
at 20020ms lease-early n1
at 20030ms wipe status
end 50s
expect no-dual-primary
expect healthy within=60s
