# B-041: a rebuild that a person asked for, against what recovers by itself
# "Start the stopped PostgreSQL" took over while the base backup of a forced rebuild still ran.
link https://github.com/patroni/patroni/pull/1215
stopped-by R14
cluster n1 n2 n3
at 20s kill-postgres replica
at 20100ms reinit replica
at 35s reinit replica
at 35s when basebackup do reinit here force=on
at 35s when basebackup do kill-agent here back=2s
at 60s when start do reinit here force=on
at 60s kill-postgres replica
end 80s
expect no-failover
expect lost=0
expect healthy within=90s
