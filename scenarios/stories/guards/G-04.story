# G-04: the ttl is raised while the leader lives by grants
# Who granted promised for as long as the old ttl said; a right of the new one would outlive the promise.
cluster n1 n2 n3 ttl=3 remove_data_directory_on_diverged_timelines=on
node n2 bootstrap=off
node n3 bootstrap=off
at 20s cut n1 etcd for=40s
at 25s set ttl 20
at 26s cut n1 peers for=35s
end 70s
expect no-dual-primary
expect healthy within=60s
