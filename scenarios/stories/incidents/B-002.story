# B-002: a short freeze of the agent moves nothing
# An agent without a watchdog stalled for less than a minute while PostgreSQL went on; the lease ran out, a replica was promoted, and
# what the old primary had acknowledged meanwhile was rewound away. A stall that ends before the right does must cost nothing.
link https://github.com/patroni/patroni/pull/3453
stopped-by R60
cluster n1 n2 n3
at 20s freeze-agent leader for=1500ms
at 30s freeze-agent leader for=2s
end 40s
expect no-failover
expect lost=0
expect healthy within=20s
