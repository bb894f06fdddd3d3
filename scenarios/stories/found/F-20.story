# F-20: an older timeline in a pause
# Found by the simulation (FOUND.md 20): a primary of an older timeline took the lock that the newer one's restarted agent had lost.
stopped-by R10
cluster n1 n2 n3 remove_data_directory_on_diverged_timelines=on
at 20s isolate leader for=12s
at 28s pause for=25s
at 36s kill-agent leader back=10s
end 70s
expect no-dual-primary
expect healthy within=60s
