# G-09: the identity is wiped, and a newcomer with an empty directory comes
# A status key with a timeline is proof that a primary has lived; no second cluster is created beside it.
stopped-by R32
returns-with SecondCluster
cluster n1 n2
node n2 joins=40s
at 20s power-loss n1 back=60s
at 25s wipe initialize
at 70s expect no-primary
end 90s
expect never-primary n2
expect no-dual-primary
expect healthy within=60s
