# B-047: a primary crashes and comes back while its replicas cannot see etcd
# The primary recovered by itself and raised its own timeline. The name of the leader was the same as before, so replicas that had been
# away from the DCS did not look whether they must be rewound.
link https://github.com/patroni/patroni/pull/3457
requires backend_crashes
stopped-by R40
cluster n1 n2 n3 use_pg_rewind=on
at 20s cut replicas etcd for=25s
at 25s kill-postgres leader
at 30s crash-backend leader
end 60s
expect no-dual-primary
expect healthy within=90s
