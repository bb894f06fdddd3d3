# F-55: a primary is restarted where a crash fails over at once
# With primary_start_timeout of zero the agent took the server that came up again for one that had crashed, killed it and gave the lock away; after
# two such restarts nobody might lead for as long as who had given up was to wait. (Seed 17002084.)
stopped-by R50
cluster n1 n2 primary_start_timeout=0
node n2 bootstrap=off
at 20s restart n1
at 24s restart n1
end 50s
expect no-dual-primary
expect promotions<=0
expect outage<=2s
expect lost=0
expect healthy within=60s
