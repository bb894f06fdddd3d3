# B-025: a setting that names replicas which are gone is put right
# Cascading replicas came to the primary for a moment, were added to the setting, and left again; the loop saw no change and kept the
# wrong list.
link https://github.com/patroni/patroni/issues/3369
requires synchronous_mode
cluster n1 n2 n3 n4 synchronous_mode=on synchronous_node_count=2
node n4 replicatefrom=n3
at 20s cut n3 n4 for=4s
at 30s cut n3 n4 for=4s
at 40s power-loss leader back=20s
end 70s
expect no-dual-primary
expect lost=0
expect healthy within=60s
