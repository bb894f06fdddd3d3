# B-024: a replica counts as synchronous only once commits wait for it
# Just after the setting changed, PostgreSQL called a walsender synchronous that had not flushed up to the position of the change. The
# replica was published, the primary died, and acknowledged commits were gone.
link https://github.com/patroni/patroni/pull/2524
requires synchronous_mode
cluster n1 n2 n3 synchronous_mode=on
at 20s slow-link n2 n1 by=800ms for=30s
at 20s slow-link n3 n1 by=800ms for=30s
at 22s kill-agent candidate back=3s
at 24s power-loss leader back=30s
end 60s
expect no-dual-primary
expect lost=0
expect healthy within=60s
