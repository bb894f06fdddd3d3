# M-04: the agent of the primary is killed
# Patroni 4.1.5: two primaries for 15 to 27 s, and thousands of acknowledged writes lost, unless somebody starts it again in time.
cluster n1 n2 n3 use_pg_rewind=on remove_data_directory_on_diverged_timelines=on
router r1
client c1
client c2 via=r1
at 20s kill-agent leader back=1s
end 35s
expect no-dual-primary
expect lost=0
expect no-failover
expect outage<=500ms client=c1
expect healthy within=30s
