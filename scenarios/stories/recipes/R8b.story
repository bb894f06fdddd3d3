# R8b: one member, and two
# No replica to give the lock to: the one that is there goes on as soon as it may.
cluster n1
at 20s kill-postgres n1
at 21s expect writes within=14s
at 40s power-loss n1 back=5s
at 41s expect writes within=29s
at 80s no-quorum for=12s
end 110s
expect no-dual-primary
expect promotions<=1
expect healthy within=60s
