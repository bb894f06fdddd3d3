# B-019: one demotion at a time
# The shutdown of a primary took longer than a round, the next round met the loss of etcd again and began a second demotion beside the
# first.
link https://github.com/patroni/patroni/pull/3372
stopped-by R14
cluster n1 n2 n3 failsafe_mode=off remove_data_directory_on_diverged_timelines=on
at 19s slow leader stop by=4s
at 20s no-quorum for=15s
end 40s
expect no-dual-primary
expect healthy within=60s
