# B-030b: a switchover to a named candidate without synchronous mode
# The part of B-030 that concerns every cluster.
link https://github.com/patroni/patroni/issues/3307
stopped-by R20
returns-with ReleaseBeforeStop
cluster n1 n2 n3
node n2 bootstrap=off
node n3 bootstrap=off
at 20s switchover to=n2
at 20s expect primary is=n2 within=15s
at 40s switchover to=n3
at 40s expect primary is=n3 within=15s
end 60s
expect no-dual-primary
expect promotions<=2
expect lost=0
expect healthy within=30s
