# B-078b: a replica is lost, then the primary
# The second way into B-078.
link https://github.com/hapostgres/pg_auto_failover/issues/1168
stopped-by R71
cluster n1 n2 n3 remove_data_directory_on_diverged_timelines=on
at 20s power-loss candidate back=60s
at 23s power-loss leader back=60s
at 24s expect writes within=11s
end 100s
expect no-dual-primary
expect healthy within=60s
