# F-48: a rebuild is asked for just after an election that the member has not heard of
# Found in writing a plot for StaleReads (FOUND.md, known and not changed): the member streams from a replica, comes to the next timeline with
# it, and nobody has looked at it since; so it is cloned over from the leader before.
cluster n1 n2 n3 failsafe_mode=off remove_data_directory_on_diverged_timelines=on ttl=10
node n2 bootstrap=off
node n3 bootstrap=off replicatefrom=n2
at 20s watch-gap n3 for=60s
at 20s cut n1 etcd for=60s
at 20s when lock-lost do cut n3 etcd for=60s
at 20s when promoted on=n2 after=120ms do reinit n3 force=on from-leader=on
at 20500ms cut n1 n2 for=60s
end 100s
expect no-dual-primary
expect healthy within=90s
