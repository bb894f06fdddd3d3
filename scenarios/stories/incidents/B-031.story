# B-031: a demoted primary that is ahead does not hold back the synchronous replica
# The primary was cut from the DCS and restarted read-only. Its API still answered with a higher position, and the synchronous replica
# did not think itself the healthiest.
link https://github.com/patroni/patroni/issues/1054
requires synchronous_mode
cluster n1 n2 n3 synchronous_mode=on failsafe_mode=off
at 20s cut leader etcd for=40s
at 21s expect writes within=14s
end 70s
expect no-dual-primary
expect lost=0
expect healthy within=60s
