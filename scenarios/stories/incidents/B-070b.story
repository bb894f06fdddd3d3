# B-070b: nobody is elected if every replica is far behind
# As B-070 with no good replica left: the cluster waits for the one that has the data.
link https://github.com/sorintlab/stolon/issues/783
requires stalled_receivers
stopped-by lag-too-high
cluster n1 n2 n3
node n2 bootstrap=off
node n3 bootstrap=off
at 20s stall-receiver n2
at 20s stall-receiver n3
at 21s burst bytes=67108864
at 40s power-loss n1 back=40s
at 75s expect no-primary
end 95s
expect never-primary n2
expect never-primary n3
expect no-dual-primary
expect healthy within=60s
