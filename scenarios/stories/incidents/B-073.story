# B-073: the primary dies between the two writes of a change of the sync set
# What the primary reported and what was wanted of it differed, because a query failed; after its reboot there was "no eligible master".
link https://github.com/sorintlab/stolon/issues/351
link https://github.com/sorintlab/stolon/issues/488
requires synchronous_mode
cluster n1 n2 n3 synchronous_mode=on remove_data_directory_on_diverged_timelines=on
at 20s kill-agent candidate back=10s
at 22s power-loss leader back=20s
at 23s expect writes within=14s
end 60s
expect no-dual-primary
expect lost=0
expect healthy within=60s
