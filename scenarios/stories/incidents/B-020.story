# B-020: the guard stays armed until the last backend is gone
# The stop of a primary was given up with backends still alive, the watchdog was switched off all the same, and those backends could go
# on to commit.
link https://github.com/patroni/patroni/issues/3639
requires stuck_backends
stopped-by R01
cluster n1 n2 n3 failsafe_mode=off remove_data_directory_on_diverged_timelines=on
at 20s stick-backend leader for=60s
at 21s cut leader etcd for=30s
at 22s expect writes within=11s
end 60s
expect no-dual-primary
expect healthy within=60s
