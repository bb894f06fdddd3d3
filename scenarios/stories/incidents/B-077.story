# B-077: a primary that fenced itself comes back
# The keeper fenced itself, and the monitor wanted a state from it that cannot be reached from there; it failed for ever, and the
# formation waited for it.
link https://github.com/hapostgres/pg_auto_failover/issues/1025
stopped-by R01
cluster n1 n2 n3 failsafe_mode=off remove_data_directory_on_diverged_timelines=on
at 20s cut leader all for=12s
at 45s cut leader all for=7s
at 70s no-quorum for=12s
end 100s
expect no-dual-primary
expect healthy within=60s
