# B-087: a replica that lost the primary, while others still see it
# The link between primary and replica was cut. The witness said that it had seen the primary a second ago; the replica promoted itself all the
# same.
link https://github.com/EnterpriseDB/repmgr/issues/821
stopped-by R73
cluster n1 n2 n3
node n2 bootstrap=off
node n3 bootstrap=off
at 20s cut n1 n2 for=30s
at 60s cut n1 n2 way=there for=20s
end 90s
expect no-failover
expect lost=0
expect healthy within=40s
