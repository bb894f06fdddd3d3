# B-094: the router and the cluster do not agree on who is there
# The pooler's own leader, the virtual address and the primary ended up on different hosts, or the address was nowhere: the pooler
# moves by votes of its own. A router that only asks who leads moves nothing.
link https://github.com/pgpool/pgpool2/issues/109
link https://github.com/pgpool/pgpool2/issues/110
stopped-by R60
cluster n1 n2 n3
router r1 poll=500ms
client c1 via=r1
client c2
at 20s cut router:r1 leader for=10s
at 45s switchover
at 46s expect writes client=c1 within=14s
end 70s
expect promotions<=1
expect no-dual-primary
expect lost=0
expect healthy within=30s
