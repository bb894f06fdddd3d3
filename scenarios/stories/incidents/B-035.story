# B-035: the health endpoint says primary of the primary only
# A flag was not taken back when a node was demoted or had lost the DCS; the load balancer went on to send writes there.
link https://github.com/patroni/patroni/issues/776
stopped-by R01
cluster n1 n2 n3 failsafe_mode=off remove_data_directory_on_diverged_timelines=on
router r1 poll=500ms
client c1 via=r1
at 20s cut leader etcd for=20s
at 50s switchover
end 70s
expect no-dual-primary
expect healthy within=60s
