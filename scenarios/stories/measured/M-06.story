# M-06: agent, guard and PostgreSQL of the primary are killed
# Patroni 4.1.5: 24 to 26 s without writes, 19 s with a ttl of 20 s.
cluster n1 n2 n3 use_pg_rewind=on remove_data_directory_on_diverged_timelines=on
router r1
client c1
client c2 via=r1
at 20s kill-postgres leader
at 20s kill-guard leader
at 20s kill-agent leader
end 40s
expect no-dual-primary
expect outage<=6500ms client=c1
expect promotions<=1
expect healthy within=60s
