# R4c: promotion and checkpoint meet the next failover
# The new primary is gone between its promotion and its first checkpoint, and its successor, too.
cluster n1 n2 n3 use_pg_rewind=on remove_data_directory_on_diverged_timelines=on
at 20s isolate leader for=20s
at 20s when promoted do kill-agent here back=1s
at 20s when checkpoint skip=1 do kill-postgres here
at 60s isolate leader for=20s
at 60s when promoted do power-loss here back=10s
end 100s
expect no-dual-primary
expect healthy within=90s
