# B-079: a diverged replica is not a lagging one
# Positions were compared by the number of the timeline alone. A node with WAL past the fork waited for ever, or would have been taken.
link https://github.com/hapostgres/pg_auto_failover/issues/683
stopped-by R44
returns-with NumberForAncestry ForkIgnored
cluster n1 n2 n3 use_pg_rewind=on
at 20s isolate leader clients=on for=15s
at 50s isolate leader clients=on for=15s
end 80s
expect no-dual-primary
expect healthy within=90s
