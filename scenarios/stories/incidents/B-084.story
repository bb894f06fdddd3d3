# B-084: a long recovery after a rewind is no failure
# The rewind had worked, recovery took longer than the fixed ten seconds that were waited, the manager declared it failed and began
# anew.
link https://github.com/hapostgres/pg_auto_failover/issues/1167
stopped-by R50
cluster n1 n2 n3 use_pg_rewind=on
node n2 bootstrap=off
node n3 bootstrap=off
at 20s isolate n1 for=15s
at 20s when rewound on=n1 do slow n1 start by=40s
end 80s
expect no-dual-primary
expect healthy within=90s
