# A-2: nine machines: three of etcd, three with HAProxy, three of PostgreSQL with an archive
# As an article builds it on Debian 12, but that clients know the three routers themselves, where it has an address that moves between
# them. A backend's crash is recovered in place, the stop of a primary and the loss of etcd's leader are nothing to wait for.
cluster node1 node2 node3 ttl=30 loop_wait=10 retry_timeout=10 use_pg_rewind=on
router hap1 poll=3s fall=3 rise=2
router hap2 poll=3s fall=3 rise=2
router hap3 poll=3s fall=3 rise=2
client c1 via=hap1 sticky=off
client c2 via=hap2 sticky=off
client c3 via=hap3 sticky=off
client c4
| scope: postgres
| namespace: /db/
| name: $name
|
| restapi:
|     listen: $address:8008
|     connect_address: $address:8008
|
| etcd:
|     hosts: $etcd
|
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
|         wal_level: hot_standby # or replica
|         hot_standby: "on"
|         wal_keep_segments: 8
|         max_wal_senders: 5
|         max_replication_slots: 5
|         max_connections: 100
|         max_worker_processes: 8
|         max_locks_per_transaction: 64
|         wal_log_hints: "on"
|         track_commit_timestamp: "off"
|         archive_mode: "on"
|         archive_timeout: 1800s
|         archive_command: mkdir -p ../wal_archive && test ! -f ../wal_archive/%f && cp %p ../wal_archive/%f
|       recovery_conf:
|         restore_command: cp ../wal_archive/%f %p
|
|   initdb:
|   - auth: scram-sha-256
|   - encoding: UTF8
|   - data-checksums
|
|   pg_hba:
|   - host replication replicator 127.0.0.1/32 scram-sha-256
|   - host replication replicator $address1/0 scram-sha-256
|   - host replication replicator $address2/0 scram-sha-256
|   - host replication replicator $address3/0 scram-sha-256
|   - host all all 0.0.0.0/0 scram-sha-256
|
|   users:
|     admin:
|       password: admin
|       options:
|         - createrole
|         - createdb
|
| postgresql:
|   listen: $address:5432
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
|   parameters:
|       unix_socket_directories: '.'
|       max_connections: 100
|       shared_buffers: 512MB
|       wal_level: replica
|       hot_standby: "on"
|       max_wal_senders: 5
|       max_replication_slots: 5
|       password_encryption: 'scram-sha-256'
|
| tags:
|     nofailover: false
|     noloadbalance: false
|     clonefrom: false
|     nosync: false
at 20s kill-etcd leader back=20s
at 22s crash-backend leader
at 22s expect writes client=c3 within=8s
at 35s stop-agent leader back=15s
at 35s expect writes client=c1 within=10s
at 35s expect writes client=c2 within=10s
at 35s expect writes client=c3 within=10s
end 55s
expect no-dual-primary
expect promotions<=1
expect lost=0
expect healthy within=60s
