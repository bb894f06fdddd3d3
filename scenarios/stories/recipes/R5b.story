# R5b: etcd loses its quorum while the network is split
# No side may lead by itself; with failsafe the primary lives only while every electable member agrees.
returns-with FailsafeByMajority FailsafeWithoutGrants
cluster n1 n2 n3 remove_data_directory_on_diverged_timelines=on
node n2 bootstrap=off
node n3 bootstrap=off
at 20s no-quorum for=40s
at 30s cut n1 n3 for=15s
end 80s
expect no-dual-primary
expect healthy within=60s
