# B-005b: a watch goes silent and nothing says so
# The other half of B-005: progress notifications were lost, and nobody noticed that a watch had stopped telling.
link https://github.com/patroni/patroni/issues/3396
stopped-by R71
cluster n1 n2 remove_data_directory_on_diverged_timelines=on
at 20s watch-gap replica for=60s
at 25s power-loss leader back=30s
at 26s expect writes within=14s
end 60s
expect no-dual-primary
expect healthy within=60s
