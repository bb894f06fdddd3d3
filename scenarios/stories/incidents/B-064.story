# B-064: a host falls silent, and nothing says that it is gone
# The health of the dead node was read from a signal that stays "ready" when the node itself is gone. Here the host stands still: its
# connections stay open, and nothing is refused.
link https://github.com/cloudnative-pg/cloudnative-pg/pull/10448
stopped-by R71
returns-with GuardAsleep
cluster n1 n2 n3 remove_data_directory_on_diverged_timelines=on
at 20s pause-host leader for=60s
at 21s expect writes within=11s
end 90s
expect no-dual-primary
expect healthy within=60s
