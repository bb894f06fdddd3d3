# B-037b: keys are deleted in a pause
# As B-037 while the cluster is paused: it stays paused, and PostgreSQL is left alone.
link https://github.com/patroni/patroni/pull/680
stopped-by R10
cluster n1 n2 n3
at 20s pause for=50s
at 30s wipe config
at 40s wipe initialize
at 50s wipe members
end 80s
expect no-dual-primary
expect lost=0
expect healthy within=60s
