# B-083: a switchover does not elect the old primary again
# All nodes were healthy and of equal priority, and the election picked the one that had just been told to go.
link https://github.com/hapostgres/pg_auto_failover/pull/772
link https://github.com/hapostgres/pg_auto_failover/pull/533
stopped-by R20
cluster n1 n2 n3
node n2 bootstrap=off
node n3 bootstrap=off
at 20s switchover
at 20s expect role n1 replica within=15s
end 40s
expect promotions<=1
expect no-dual-primary
expect lost=0
expect healthy within=30s
