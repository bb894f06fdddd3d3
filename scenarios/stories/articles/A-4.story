# A-4: five machines: three of PostgreSQL, one of etcd, one with HAProxy
# As a guide for Ubuntu has it. Its tests: the service on the primary is stopped, and later that on the next one.
cluster node1 node2 node3 ttl=30 loop_wait=10 retry_timeout=10 use_pg_rewind=on
etcd etcdnode
router haproxynode poll=3s fall=3 rise=2
client c1 via=haproxynode sticky=off
client c2
| scope: postgres
| namespace: /db/
| name: $name
|
| restapi:
|     listen: $address:8008
|     connect_address: $address:8008
|
| etcd:
|     host: $etcd
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
|
|   initdb:
|   - encoding: UTF8
|   - data-checksums
|
|   pg_hba:
|   - host replication replicator 127.0.0.1/32 md5
|   - host replication replicator $address1/0 md5
|   - host replication replicator $address2/0 md5
|   - host replication replicator $address3/0 md5
|   - host all all 0.0.0.0/0 md5
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
|
| tags:
|     nofailover: false
|     noloadbalance: false
|     clonefrom: false
|     nosync: false
at 20s stop-agent leader back=20s
at 20s expect writes client=c2 within=2s
at 20s expect writes client=c1 within=10s
at 42s stop-agent leader back=10s
at 42s expect writes client=c2 within=2s
at 42s expect writes client=c1 within=10s
end 60s
expect no-dual-primary
expect promotions<=2
expect lost=0
expect healthy within=60s
