# B-065: one failed look at PostgreSQL is no reason to fail over
# A single failed status probe was enough for a failover, although the pod was reported ready.
link https://github.com/cloudnative-pg/cloudnative-pg/pull/10445
requires refused_connections
stopped-by R60
cluster n1 n2 n3
at 20s fail leader probe
at 30s fail leader probe count=2
at 40s refuse-connections leader for=1s
end 50s
expect no-failover
expect lost=0
expect healthy within=20s
