# R5: a partition of each shape
# Full, one way, with a bridge, from etcd only, from the peers only, the primary alone with its clients, and one that heals inside the failover.
cluster n1 n2 n3 n4 n5 remove_data_directory_on_diverged_timelines=on
at 20s split leader,candidate for=15s
at 60s split leader bridge=candidate for=15s
at 100s cut leader etcd for=15s
at 140s cut leader peers for=15s
at 170s cut leader etcd way=there for=12s
at 210s cut leader etcd way=back for=12s
at 250s isolate leader clients=on for=12s
at 290s isolate leader clients=off for=20s
at 290s when acquire do heal-network
at 320s split leader way=there for=12s
at 350s lossy-link leader all percent=30 for=15s
end 380s
expect no-dual-primary
expect healthy within=90s
