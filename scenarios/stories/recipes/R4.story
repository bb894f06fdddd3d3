# R4: a second fault in each act of a failover
# The agent dies, or sleeps, between what its core orders and what it does: at the lock, the promotion, the start, the stop.
cluster n1 n2 n3 remove_data_directory_on_diverged_timelines=on
at 20s power-loss leader back=15s
at 20s when acquire do kill-agent here back=2s
at 50s power-loss leader back=15s
at 50s when promote do kill-agent here back=2s
at 80s power-loss leader back=15s
at 80s when promote do freeze-agent here for=8s
at 110s freeze-agent leader for=12s
at 110s when start do kill-agent here back=3s
at 140s switchover
at 140s when stop do kill-agent here back=3s
at 170s switchover
at 170s when release do freeze-agent here for=7s
end 200s
expect no-dual-primary
expect healthy within=90s
