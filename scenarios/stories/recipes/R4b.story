# R4b: a second fault in each act of a return
# The source of a rewind or of a clone goes away, the agent dies in the midst of it, and all begins again.
cluster n1 n2 n3 use_pg_rewind=on remove_data_directory_on_rewind_failure=on remove_data_directory_on_diverged_timelines=on
at 20s isolate leader for=15s
at 20s when rewind do kill-agent here back=2s
at 60s isolate leader for=15s
at 60s when rewind after=100ms do kill-postgres leader
at 100s reinit replica
at 100s when basebackup after=100ms do kill-postgres leader
at 120s reinit replica
at 120s when basebackup after=100ms do power-loss here back=5s
end 150s
expect no-dual-primary
expect healthy within=120s
