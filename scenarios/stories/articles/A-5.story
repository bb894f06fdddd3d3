# A-5: two members with etcd beside one of them
# As slides of a talk set it up for a first try. What they show: failover by hand, management turned off, and that the primary's server may go
# and come meanwhile.
cluster postgresql0 postgresql1 ttl=30 loop_wait=10 retry_timeout=10
etcd e1@postgresql0
| scope: batman
| name: $name
|
| restapi:
|   listen: $address:8008
|   connect_address: $address:8008
|
| etcd:
|   host: $etcd
|
| bootstrap:
|   dcs:
|     ttl: 30
|     loop_wait: 10
|     retry_timeout: 10
|     maximum_lag_on_failover: 1048576
|   initdb:
|   - encoding: UTF8
|   - data-checksums
|   pg_hba:
|   - host replication replicator 0.0.0.0/0 md5
|   - host all all 0.0.0.0/0 md5
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
|     unix_socket_directories: '$sockets'
at 20s failover to=replica
at 20s expect writes within=3s
at 22s expect role former-leader replica within=8s
at 32s pause
at 44s restart leader
at 44s expect writes within=10s
at 56s resume
end 70s
expect no-dual-primary
expect promotions<=1
expect lost=0
expect healthy within=60s
