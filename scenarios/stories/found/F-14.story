# F-14: ttl is raised between a renewal and its answer
# Found in reading for the simulation (FOUND.md 14): a right of thirty seconds on a lease of five.
stopped-by R01
returns-with RightForever
cluster n1 n2 n3 failsafe_mode=off remove_data_directory_on_diverged_timelines=on
at 20s when renew on=leader do set ttl 30
at 20s when renew on=leader skip=1 do cut leader etcd for=40s
at 20s delay leader by=400ms rpc=keepalive count=2
end 75s
expect no-dual-primary
expect healthy within=60s
