# B-027: names that PostgreSQL folds, quotes or keeps for itself
# A member's name with capitals was folded to lower case, others were keywords of synchronous_standby_names; the synchronous replica was
# never matched, so that failover was blocked or commits hung.
link https://github.com/patroni/patroni/pull/1359
link https://github.com/patroni/patroni/pull/3161
link https://github.com/patroni/patroni/pull/505
stopped-by R71
cluster Alpha-1 FIRST "any" remove_data_directory_on_diverged_timelines=on
at 20s switchover
at 35s power-loss leader back=20s
at 36s expect writes within=11s
end 70s
expect no-dual-primary
expect healthy within=60s
