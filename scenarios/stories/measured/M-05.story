# M-05: the agent of the primary sleeps for a minute
# Patroni 4.1.5: two primaries for 30 to 39 s, and 2785 to 3699 acknowledged writes lost.
cluster n1 n2 n3 use_pg_rewind=on remove_data_directory_on_diverged_timelines=on
router r1
client c1
client c2 via=r1
at 20s freeze-agent leader for=60s
end 85s
expect no-dual-primary
expect outage<=6500ms client=c1
expect promotions<=1
expect healthy within=60s
