# B-002b: a long freeze ends the old primary before the new one is made
# As B-002, but the freeze outlives the lease: the guard stops the old primary in time, so that nobody writes to it any more when the
# next one is promoted.
link https://github.com/patroni/patroni/pull/3453
stopped-by R42
returns-with GuardAsleep GuardTooLate RightForever
cluster n1 n2 n3 remove_data_directory_on_diverged_timelines=on
at 20s freeze-agent leader for=15s
at 21s expect writes within=9s
at 30s expect primary within=1s
end 45s
expect no-dual-primary
expect outage<=11s
expect healthy within=60s
