# B-080: a primary and one member of the quorum are lost
# The survivors waited for ever for the missing vote, or were promoted without it.
link https://github.com/hapostgres/pg_auto_failover/issues/707
requires synchronous_mode
cluster n1 n2 n3 synchronous_mode=quorum synchronous_node_count=1
at 20s power-loss candidate back=60s
at 20s power-loss leader back=60s
at 50s expect no-primary
end 90s
expect no-dual-primary
expect lost=0
expect healthy within=60s
