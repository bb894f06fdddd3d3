# M-13: the primary's PostgreSQL crashes where a synchronous standby has every commit
# Recovery in place takes as long as there is WAL to replay; the standby need not wait for that.
cluster n1 n2 n3 synchronous_mode=on use_pg_rewind=on
router r1
client c1
client c2 via=r1
at 20s kill-postgres leader
at 20s expect decides R46 within=2s
end 40s
expect no-dual-primary
expect lost=0
expect promotions<=1
expect outage<=2s client=c1
expect healthy within=60s
