# R3: nodes go down and come up in every order, with writes between
# Five nodes; each of the last primaries is away when the next falls, and they return in the order in which they left.
cluster n1 n2 n3 n4 n5 remove_data_directory_on_diverged_timelines=on
at 20s power-loss leader back=45s
at 32s power-loss leader back=45s
at 44s power-loss leader back=45s
at 56s power-loss leader back=20s
at 57s expect writes within=29s
at 90s kill-postgres leader
at 95s stop-agent leader back=3s
end 120s
expect no-dual-primary
expect healthy within=90s
