# B-065b: the network fails again while a failover is under way
# Lost connectivity during a failover started a second one beside it.
link https://github.com/cloudnative-pg/cloudnative-pg/issues/5788
stopped-by R43
cluster n1 n2 n3 remove_data_directory_on_diverged_timelines=on
at 20s power-loss leader back=40s
at 20s when promote do isolate here for=3s
end 70s
expect no-dual-primary
expect healthy within=60s
