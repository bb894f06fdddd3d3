# B-046: pg_rewind waits for the new primary's checkpoint
# A stale "done" of an earlier checkpoint was taken for that of the present promotion. pg_rewind read an old control file, found nothing
# to do, and the replica diverged.
link https://github.com/patroni/patroni/issues/3367
link https://github.com/patroni/patroni/issues/2073
stopped-by R44
cluster n1 n2 n3 use_pg_rewind=on
at 20s slow candidate checkpoint by=10s
at 20s isolate leader for=12s
at 45s switchover
at 52s switchover
end 80s
expect no-dual-primary
expect healthy within=90s
