# B-097b: etcd elects again and again while the primary is dead
# The second half of B-097: elections that come faster than the ttl put the expiry off each time. Whoever waits by etcd's expiry alone waits
# for as long as they last.
link https://github.com/etcd-io/etcd/issues/20273
stopped-by R71
cluster n1 n2 n3 remove_data_directory_on_diverged_timelines=on
at 20s power-loss leader back=40s
at 21s elect-etcd outage=300ms
at 24s elect-etcd outage=300ms
at 27s elect-etcd outage=300ms
at 30s elect-etcd outage=300ms
at 31s expect writes within=11s
end 80s
expect no-dual-primary
expect healthy within=60s
