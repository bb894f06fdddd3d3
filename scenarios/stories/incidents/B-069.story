# B-069: no wait without a bound
# Two settings were swapped and one of them defaulted to more than a year, so that a stop which hung never escalated.
link https://github.com/cloudnative-pg/cloudnative-pg/issues/531
stopped-by R20
cluster n1 n2 n3
at 19s slow leader stop by=24h
at 20s switchover
at 21s expect writes within=39s
at 70s slow leader stop by=24h
at 71s restart leader
at 72s expect writes within=89s
end 170s
expect no-dual-primary
expect healthy within=60s
