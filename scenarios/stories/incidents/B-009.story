# B-009: a loop in which nothing changes still renews the lock
# A round that found nothing to write skipped the renewal, and one long round after it was enough to lose the lock.
link https://github.com/patroni/patroni/pull/3341
stopped-by R60
cluster n1 n2 n3
at 20s pace c1 every=forever
at 20s slow-agent leader by=700ms for=60s
end 80s
expect no-failover
expect healthy within=20s
