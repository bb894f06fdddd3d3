# B-037: keys are deleted, one kind after the other
# With the config key gone a node took the pause for over and acted; in another case a replica, not the primary, wrote the identity of
# the cluster anew.
link https://github.com/patroni/patroni/pull/680
link https://github.com/patroni/patroni/pull/2970
stopped-by R60
cluster n1 n2 n3 remove_data_directory_on_diverged_timelines=on
at 20s wipe config
at 30s wipe initialize
at 40s wipe status
at 50s wipe members
at 60s wipe history
at 70s wipe failsafe
at 80s wipe leader
at 95s wipe all
end 110s
expect no-dual-primary
expect lost=5
expect healthy within=60s
