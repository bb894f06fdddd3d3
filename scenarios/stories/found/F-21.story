# F-21: a release arrives late
# Found by the simulation (FOUND.md 21): a release was on its way when its agent was killed; the next agent renewed the same key and started PostgreSQL; then
# the release arrived and said that the reign was over.
cluster n1 n2 n3
at 20s delay leader by=4s rpc=txn count=1
at 20s when release after=50ms do kill-agent here back=500ms
at 20500ms switchover
at 50s when release do delay here by=5s rpc=txn count=1
at 50s when release after=100ms do kill-agent here back=1s
at 50s stop-agent leader back=2s
end 80s
expect no-dual-primary
expect lost=0
expect healthy within=60s
