# A-1: three members, and two of etcd behind a load balancer
# As an article builds it in a cloud: a ttl of 100 s, one address for etcd, load balancers that ask each member every two seconds. Its own
# tests: the primary is stopped (6 s there), and a member of etcd, of which two are no quorum.
cluster n1 n2 n3 ttl=100 loop_wait=10 retry_timeout=10 use_pg_rewind=on
etcd e1 e2
router lb poll=2s fall=2 rise=2
client c1 via=lb sticky=off
client c2
| scope: postgres
| namespace: /db/
| name: $name
| restapi:
|   listen: 0.0.0.0:8008
|   connect_address: $address:8008
| etcd:
|   host: $balancer
| bootstrap:
|   dcs:
|     ttl: 100
|     loop_wait: 10
|     retry_timeout: 10
|     maximum_lag_on_failover: 1048576
|     postgresql:
|       use_pg_rewind: true
|       use_slots: true
|       parameters:
|         wal_level: replica
|         hot_standby: "on"
|         wal_keep_segments: 8
|         max_wal_senders: 5
|         max_replication_slots: 5
|         checkpoint_timeout: 30
|   initdb:
|   - encoding: UTF8
|   - data-checksums
|   pg_hba:
|   - host replication replicator 127.0.0.1/32 md5
|   - host replication replicator $address1/32 md5
|   - host replication replicator $address2/32 md5
|   - host replication replicator $address3/32 md5
|   - host all all 0.0.0.0/0 md5
|   users:
|     admin:
|       password: admin
|       options:
|         - createrole
|         - createdb
| postgresql:
|   listen: 0.0.0.0
|   connect_address: $address:5432
|   data_dir: $data
|   config_dir: $data
|   bin_dir: $bin
|   pgpass: $pgpass
|   authentication:
|     replication:
|       username: replicator
|       password: $password
|     superuser:
|       username: postgres
|       password: $password
|   parameters:
|     unix_socket_directories: '$sockets'
| tags:
|   nofailover: false
|   noloadbalance: false
|   clonefrom: false
|   nosync: false
| log:
|   dir: $log
|   level: INFO
at 20s stop-agent leader back=15s
at 20s expect writes client=c2 within=2s
at 20s expect writes client=c1 within=6s
at 50s kill-etcd e1 back=20s
at 55s expect writes client=c1 within=2s
end 80s
expect no-dual-primary
expect promotions<=1
expect lost=0
expect healthy within=60s
