# B-016: refused connections to etcd leave as much time as lost packets
# The etcd processes were killed; each connection was refused at once, the list of members was through in two seconds, and the primary
# was demoted with most of its retry_timeout unused. (With a ttl of 5 s the right may be about to end 2.5 s after the links are cut.)
link https://github.com/patroni/patroni/issues/1195
stopped-by R60
cluster n1 n2 n3 failsafe_mode=off ttl=6
at 20s refuse-link peers etcd for=2500ms
end 30s
expect no-failover
expect lost=0
expect healthy within=20s
