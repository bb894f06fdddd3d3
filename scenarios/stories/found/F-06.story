# F-06: ttl is lowered while a right by the old one runs
# Found by the simulation (FOUND.md 6): the holder counted its old right, the others waited for the new one only.
stopped-by R01
returns-with RightForever
cluster n1 n2 n3 ttl=15 failsafe_mode=off remove_data_directory_on_diverged_timelines=on
at 20s set ttl 3
at 20200ms freeze-agent leader for=20s
at 60s set ttl 15
at 75s when renew on=leader do set ttl 3
at 75s when renew on=leader after=5ms do cut leader etcd for=20s
end 110s
expect no-dual-primary
expect healthy within=60s
