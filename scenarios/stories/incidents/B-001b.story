# B-001b: the second primary freezes before it has written the history
# As B-001, with the second one frozen while its promotion is only ordered, and the first one awake again before it.
link https://github.com/patroni/patroni/issues/2779
stopped-by R42
returns-with GuardAsleep RightForever
cluster n1 n2 n3 failsafe_mode=off remove_data_directory_on_diverged_timelines=on
at 20s freeze-agent leader for=8s
at 20s when promote do freeze-agent here for=12s
end 45s
expect no-dual-primary
expect healthy within=60s
