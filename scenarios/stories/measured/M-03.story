# M-03: the postmaster of the primary is killed
# Patroni 4.1.5: 5.3 and 11.2 s without writes with its usual settings, 3.3 and 4.2 s with the fastest.
cluster n1 n2 n3 use_pg_rewind=on remove_data_directory_on_diverged_timelines=on
router r1
client c1
client c2 via=r1
at 20s kill-postgres leader
end 35s
expect no-dual-primary
expect lost=0
expect outage<=2s client=c1
expect healthy within=30s
