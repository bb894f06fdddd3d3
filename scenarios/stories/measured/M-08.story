# M-08: the primary is cut off from all
# Patroni 4.1.5: 24 to 31 s without writes; a client beside the old primary loses 400 to 855 acknowledged writes.
cluster n1 n2 n3 use_pg_rewind=on remove_data_directory_on_diverged_timelines=on
router r1
client c1
client c2 via=r1
at 20s isolate leader for=20s
end 45s
expect no-dual-primary
expect outage<=6500ms client=c1
expect promotions<=1
expect healthy within=60s
