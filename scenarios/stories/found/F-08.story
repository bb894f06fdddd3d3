# F-08: the leader's own member key expires
# Found by the simulation (FOUND.md 8): the leader wrote a failsafe list without itself, and nobody was electable afterwards.
cluster n1 n2 n3 remove_data_directory_on_diverged_timelines=on
at 20s wipe members
at 21s lease-early leader
at 30s lease-early leader
at 31s power-loss leader back=30s
at 32s expect writes within=14s
end 70s
expect no-dual-primary
expect healthy within=60s
