# B-005: a watch is cancelled by compaction and its connection stays open
# etcd compacted past the revision of a watch and said so without closing the stream. The client did not look, and served its cached
# view for ever: the member could neither follow nor take over.
link https://github.com/patroni/patroni/issues/3396
stopped-by R71
cluster n1 n2 remove_data_directory_on_diverged_timelines=on
at 20s compact
at 20s watch-cancel replica
at 25s power-loss leader back=30s
at 26s expect writes within=14s
end 60s
expect no-dual-primary
expect healthy within=60s
