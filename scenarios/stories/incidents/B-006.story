# B-006: the watch hangs on a lagging etcd member, the requests go to a current one
# The cached view came from a member that lagged behind while the requests of the same client were answered by the others; decisions
# were made on a view older than what the client itself had been told.
link https://github.com/patroni/patroni/issues/3359
stopped-by R71
cluster n1 n2 n3 remove_data_directory_on_diverged_timelines=on
at 20s pin-watch candidate member=e1 for=40s
at 20s stale-reads e1 for=40s
at 25s power-loss leader back=30s
at 26s expect writes within=14s
end 60s
expect no-dual-primary
expect healthy within=60s
