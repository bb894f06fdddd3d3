# A-1b: a delayed replica that is never to lead, and a load balancer for readers
# The same article's further advice: one replica an hour behind, with nofailover, and a second load balancer that asks for /replica. What the
# delayed one has received and not replayed counts for nothing when the primary goes.
requires read_doors
cluster n1 n2 n3 ttl=30 loop_wait=10 retry_timeout=10 use_pg_rewind=on
node n2 bootstrap=off
node n3 bootstrap=off nofailover=on recovery_min_apply_delay=3600
router lb poll=2s fall=2 rise=2
client c1 via=lb sticky=off
| scope: postgres
| namespace: /db/
| name: $name
| restapi:
|   listen: 0.0.0.0:8008
|   connect_address: $address:8008
| etcd:
|   hosts: $etcd
| bootstrap:
|   dcs:
|     ttl: 30
|     loop_wait: 10
|     retry_timeout: 10
|     maximum_lag_on_failover: 1048576
|     postgresql:
|       use_pg_rewind: true
|       use_slots: true
|   initdb:
|   - encoding: UTF8
|   - data-checksums
|   pg_hba:
|   - host replication replicator 0.0.0.0/0 md5
|   - host all all 0.0.0.0/0 md5
| postgresql:
|   listen: 0.0.0.0
|   connect_address: $address:5432
|   data_dir: $data
|   bin_dir: $bin
|   pgpass: $pgpass
|   authentication:
|     replication:
|       username: replicator
|       password: $password
|     superuser:
|       username: postgres
|       password: $password
|   recovery_conf:
|     recovery_min_apply_delay: '$delay s'
|   parameters:
|     unix_socket_directories: '$sockets'
| tags:
|   nofailover: $nofailover
at 19s expect parameter n3 recovery_min_apply_delay 1h
at 19s expect door lb replica within=5s
at 20s stop-agent n1 back=15s
at 20s expect writes within=6s
at 30s expect door lb primary within=5s
at 30s expect door lb replica within=5s
end 50s
expect no-dual-primary
expect never-primary n3
expect promotions<=1
expect lost=0
