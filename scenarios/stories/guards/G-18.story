# G-18: the agent that makes the cluster is killed once its server runs
# Whoever comes after it must not lead with a server that has no roles yet, and which no configuration reaches: once that ended, nobody
# started it again and nobody made another (turmoil 1354857). The half-made cluster is stopped, put away and made anew.
returns-with HalfMadeLeads
cluster n1 n2 n3
at 10ms when started do kill-agent here back=800ms
at 20s kill-postgres leader
end 45s
expect no-dual-primary
expect promotions<=1
expect healthy within=30s
