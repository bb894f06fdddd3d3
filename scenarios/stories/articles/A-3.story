# A-3: three of PostgreSQL, three of etcd, and a load balancer
# As a vendor's documentation has it, with a user for pg_rewind and a slot of its own. Its tests: replication works, a manual switchover, and
# the primary's host is restarted. It is back within the ttl, still has the lock, and is promoted again.
cluster postgreshost1 postgreshost2 postgreshost3 ttl=30 loop_wait=10 retry_timeout=10 use_pg_rewind=on
router lb poll=1s
client c1 via=lb sticky=off
client c2
| scope: patroni_cluster
| name: $name
| restapi:
|   listen: '$address:8008'
|   connect_address: '$address:8008'
| etcd:
|   hosts: '$etcd'
| bootstrap:
|   dcs:
|     ttl: 30
|     loop_wait: 10
|     retry_timeout: 10
|     maximum_lag_on_failover: 1048576
|     postgresql:
|       use_pg_rewind: true
|       use_slots: true
|       parameters:
|         hot_standby: 'on'
|         wal_keep_segments: 20
|         max_wal_senders: 8
|         max_replication_slots: 8
|     slots:
|       patroni_standby_leader:
|         type: physical
|   initdb:
|     - encoding: UTF8
|     - data-checksums
|   pg_hba:
|     - host replication replicator 0.0.0.0/0 md5
|     - host all all 0.0.0.0/0 md5
|   users:
|     admin:
|       password: admin
|       options:
|         - createrole
|         - createdb
| postgresql:
|   listen: '$address:5432'
|   connect_address: '$address:5432'
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
|     rewind:
|       username: rewind_user
|       password: $password
|   parameters:
|     unix_socket_directories: '$sockets'
| tags:
|   nofailover: false
|   noloadbalance: false
|   clonefrom: false
|   nosync: false
at 20s switchover
at 20s expect writes client=c2 within=3s
at 20s expect writes client=c1 within=5s
at 22s expect role former-leader replica within=8s
at 35s power-loss leader back=12s
at 47s expect writes within=10s
end 65s
expect no-dual-primary
expect promotions<=2
expect lost=0
expect healthy within=60s
