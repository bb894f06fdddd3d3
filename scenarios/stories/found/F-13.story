# F-13: the guard keeps the deadline of an older order
# Found by the simulation (FOUND.md 13): it killed a primary in its right, also before the first look of a restarted agent.
stopped-by R60
cluster n1 n2 n3
at 20s kill-agent leader back=1500ms
at 30s kill-agent leader back=2s
at 40s restart leader
at 40100ms kill-agent leader back=1s
end 55s
expect promotions<=1
expect lost=0
expect healthy within=30s
