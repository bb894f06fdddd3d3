# B-097: etcd's leader and the primary die on one host
# A new etcd leader gives every lease its full ttl again, that of the dead primary too: detection, election and another ttl add up.
link https://github.com/etcd-io/etcd/issues/20273
stopped-by R71
cluster n1 n2 n3 remove_data_directory_on_diverged_timelines=on
etcd e1@n1 e2@n2 e3@n3
at 20s power-loss leader back=40s
at 21s expect writes within=17s
end 80s
expect no-dual-primary
expect healthy within=60s
