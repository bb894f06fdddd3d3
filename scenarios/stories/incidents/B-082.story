# B-082: the second primary that fails is found, too
# The look-up of a failed primary stopped at the first node that had ever been demoted, so the next failure was never handled.
link https://github.com/hapostgres/pg_auto_failover/pull/706
stopped-by R71
cluster n1 n2 n3 remove_data_directory_on_diverged_timelines=on
at 20s power-loss leader
at 21s expect writes within=11s
at 40s power-loss leader
at 41s expect writes within=11s
end 60s
expect no-dual-primary
expect promotions<=2
expect healthy within=60s
