# B-001: a stale primary takes the lock again after a freeze
# The first primary starved and its lease ran out; a replica was promoted, then starved as well. The first one woke, saw itself still
# in read-write mode and no leader, and took the lock as it was. All that the second had written was lost, and since both had
# written on timelines of one number, the second could not be rewound either. (Here it is cut off from the third member, which would have followed it at once.)
link https://github.com/patroni/patroni/issues/2779
stopped-by R42 diverged
returns-with GuardAsleep RightForever
cluster n1 n2 n3 failsafe_mode=off remove_data_directory_on_diverged_timelines=on
at 20s freeze-agent leader for=12s
at 20s when promote do cut here replicas for=17s
at 20s when promoted do freeze-agent here for=12s
end 45s
expect no-dual-primary
expect promotions<=3
expect healthy within=60s
