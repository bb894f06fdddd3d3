# B-093: a host wakes after a quarter of an hour
# A host hung for fifteen minutes while another node was promoted. When it woke, it had more connected standbys in its stale view, won the
# contest of the poolers, and the new primary was made to step down; all that it had written was orphaned.
link https://github.com/pgpool/pgpool2/issues/64
stopped-by R72
cluster n1 n2 n3 remove_data_directory_on_diverged_timelines=on
at 20s pause-host leader for=15min
end 930s
expect no-dual-primary
expect promotions<=1
expect healthy within=60s
