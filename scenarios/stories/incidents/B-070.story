# B-070: a replica whose replication broke days ago is not elected
# After a disturbance of the network old and new sets of synchronous replicas were merged, and a database that had not replicated for six days
# was elected.
link https://github.com/sorintlab/stolon/issues/783
requires stalled_receivers
stopped-by lag-too-high
cluster n1 n2 n3 remove_data_directory_on_diverged_timelines=on
node n2 bootstrap=off
node n3 bootstrap=off
at 20s stall-receiver n3 for=120s
at 21s burst bytes=67108864
at 40s power-loss n1 back=60s
at 40s expect primary is=n2 within=12s
end 110s
expect no-dual-primary
expect never-primary n3
expect healthy within=60s
