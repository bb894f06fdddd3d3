# B-049: a former leader comes back and finds its slot
# At a failover the member key of the old leader runs out with its lease; slots are kept by that key, so the slot was dropped when it was
# needed most, and the old leader had to be cloned.
link https://github.com/patroni/patroni/pull/3261
link https://github.com/patroni/patroni/pull/3244
stopped-by R42
cluster n1 n2 n3
node n2 bootstrap=off
node n3 bootstrap=off
at 20s stop-agent n1 back=40s
at 21s expect writes within=11s
end 70s
expect no-dual-primary
expect data-kept n1
expect lost=0
expect healthy within=60s
