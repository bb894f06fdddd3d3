# R10: an hour of failovers
# What only builds up over time: slots, histories, timelines, retained WAL. A failover every two minutes, of every kind in turn.
cluster n1 n2 n3 use_pg_rewind=on remove_data_directory_on_diverged_timelines=on
at 60s power-loss leader back=20s
at 180s freeze-agent leader for=15s
at 300s isolate leader for=20s
at 420s switchover
at 540s kill-agent leader back=20s
at 660s pause-host leader for=30s
at 780s power-loss leader back=20s
at 900s freeze-agent leader for=15s
at 1020s isolate leader for=20s
at 1140s switchover
at 1260s kill-agent leader back=20s
at 1380s pause-host leader for=30s
at 1500s power-loss leader back=20s
at 1620s freeze-agent leader for=15s
at 1740s isolate leader for=20s
at 1860s switchover
at 1980s kill-agent leader back=20s
at 2100s pause-host leader for=30s
at 2220s power-loss leader back=20s
at 2340s freeze-agent leader for=15s
at 2460s isolate leader for=20s
at 2580s switchover
at 2700s kill-agent leader back=20s
at 2820s pause-host leader for=30s
at 3000s power-loss leader back=20s
end 3600s
expect no-dual-primary
expect healthy within=60s
