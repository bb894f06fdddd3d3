# B-042: a rewind that failed removes nothing that may not be removed
# The source died in the midst of pg_rewind; the half-rewound directory was wiped although the configuration forbids that, and then the
# source was lost for good.
link https://github.com/patroni/patroni/issues/2302
stopped-by R44
cluster n1 n2 n3 use_pg_rewind=on
at 20s isolate leader for=15s
at 20s when rewind do power-loss leader back=60s
end 100s
expect no-dual-primary
expect writes within=20s
