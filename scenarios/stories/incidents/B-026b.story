# B-026b: something that is no member streams, and is never taken for one
# As B-026 without synchronous mode: a foreign walsender under a member's name is no proof that this member has everything.
link https://github.com/patroni/patroni/issues/3111
requires rogue_standbys
stopped-by R20
cluster n1 n2
at 20s freeze-postgres replica for=10s
at 20s rogue-standby leader name=n2 for=20s
at 21s switchover
end 50s
expect no-dual-primary
expect lost=0
expect healthy within=40s
