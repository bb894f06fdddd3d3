# B-078: the candidate fails while it is on its way
# The candidate left its state just then, the count of replicas dropped to nothing, and the primary was sent into a state that has no way
# out. Also with the good replica lost first and the primary next.
link https://github.com/hapostgres/pg_auto_failover/issues/774
link https://github.com/hapostgres/pg_auto_failover/issues/1168
stopped-by R43
cluster n1 n2 n3 remove_data_directory_on_diverged_timelines=on
at 20s power-loss leader back=50s
at 20s when promote do kill-agent here back=5s
at 20s when promoted after=300ms do power-loss here back=30s
end 90s
expect no-dual-primary
expect healthy within=60s
