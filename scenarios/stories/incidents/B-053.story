# B-053: an archive command that hangs does not block a switchover
# PostgreSQL was shut down by its control file, but the archiver kept the postmaster alive; the lock was renewed meanwhile, and nobody
# could take over.
link https://github.com/patroni/patroni/pull/2067
stopped-by R20
returns-with ReleaseBeforeStop
cluster n1 n2 n3
at 19s slow leader archive by=10min
at 20s switchover
at 21s expect writes within=39s
end 80s
expect no-dual-primary
expect lost=0
expect healthy within=60s
