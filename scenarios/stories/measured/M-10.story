# M-10: PostgreSQL on the primary sleeps for 45 s
# Patroni 4.1.5: 30.6 s without writes, and two primaries for 15 s when it wakes.
cluster n1 n2 n3 use_pg_rewind=on remove_data_directory_on_diverged_timelines=on
router r1
client c1
client c2 via=r1
at 20s freeze-postgres leader for=45s
end 70s
expect no-dual-primary
expect outage<=7s client=c1
expect healthy within=60s
