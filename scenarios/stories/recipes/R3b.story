# R3b: everything goes dark at once
# Power fails for the whole site; the nodes come back one after the other, the primary last.
cluster n1 n2 n3 remove_data_directory_on_diverged_timelines=on
node n2 bootstrap=off
node n3 bootstrap=off
at 20s power-loss n1 back=20s
at 20s power-loss n2 back=5s
at 20s power-loss n3 back=12s
at 20s no-quorum for=10s
end 60s
expect no-dual-primary
expect healthy within=60s
