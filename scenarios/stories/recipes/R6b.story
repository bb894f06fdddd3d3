# R6b: a pause over everything
# Paused while the primary dies, the lock is lost and agents restart; resumed in the midst of it.
cluster n1 n2 n3 remove_data_directory_on_diverged_timelines=on
at 20s pause for=30s
at 25s kill-agent leader back=3s
at 32s lease-early leader
at 38s kill-postgres leader
at 70s pause for=20s
at 75s switchover to=candidate
end 110s
expect no-dual-primary
expect healthy within=90s
