# R7: disks
# Full, slow, broken, and the directory gone.
requires disk_faults
cluster n1 n2 n3 primary_start_timeout=10 remove_data_directory_on_diverged_timelines=on
at 20s disk-slow leader by=50ms for=10s
at 40s disk-full leader for=20s
at 80s disk-error replica for=15s
at 110s dir-gone replica
at 140s dir-gone leader
end 180s
expect no-dual-primary
expect healthy within=120s
