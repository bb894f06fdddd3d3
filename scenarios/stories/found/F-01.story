# F-01: a rebuild is pending when its member wins the lock
# Found by the simulation (FOUND.md 1): at the next crash the leader would have cloned the only primary from itself.
stopped-by R40
cluster n1 n2 remove_data_directory_on_diverged_timelines=on
node n2 bootstrap=off
at 20s power-loss n1 back=40s
at 25500ms reinit n2
at 35s kill-postgres leader
end 70s
expect no-dual-primary
expect healthy within=60s
