# M-14: the host of the primary is lost, and the leader of etcd with it
# After an election etcd gives every lease a whole ttl more, so it holds the key of the lost primary for 7.5 to 9.7 s of a ttl of 5 s. Its right is over
# before that, and everybody sees that it is.
cluster n1 n2 n3 use_pg_rewind=on remove_data_directory_on_diverged_timelines=on
router r1
client c1
client c2 via=r1
at 20s kill-etcd leader back=30s
at 20s power-loss leader back=30s
end 55s
expect no-dual-primary
expect outage<=6500ms client=c1
expect healthy within=40s
