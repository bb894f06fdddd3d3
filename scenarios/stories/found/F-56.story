# F-56: the agent of a primary is restarted beside a replica that may never lead
# Before it ended it waited for five seconds in vain for that replica to say that it could take over. (Seed 17000934.)
stopped-by R05
cluster n1 n2
node n2 nofailover=on bootstrap=off
at 20s stop-agent n1 back=1s
end 50s
expect no-dual-primary
expect promotions<=1
expect outage<=4s
expect lost=0
expect healthy within=60s
