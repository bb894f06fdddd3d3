# B-016b: lost packets to etcd, for as long
# The other half of B-016: nothing answers at all.
link https://github.com/patroni/patroni/issues/1195
stopped-by R60
cluster n1 n2 n3 failsafe_mode=off
at 20s cut peers etcd for=1200ms
end 30s
expect no-failover
expect lost=0
expect healthy within=20s
