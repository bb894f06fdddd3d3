# F-07: the candidate of a switchover meets a primary that lives by grants
# Found by the simulation (FOUND.md 7): it overruled the failsafe list while the cut-off leader went on by the grants of everybody on it.
stopped-by failsafe-promise
cluster n1 n2 n3 remove_data_directory_on_diverged_timelines=on
node n2 bootstrap=off
node n3 bootstrap=off
at 19s freeze-postgres n3 for=12s
at 28s cut n1 etcd for=20s
at 28200ms switchover to=n3
end 70s
expect no-dual-primary
expect healthy within=60s
