# A-5b: a parameter by PATCH
# The same slides: the REST API changes PostgreSQL's configuration on all members. A member that is away when it happens has it when it
# comes back.
requires parameters
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
at 20s kill-agent postgresql1 back=15s
at 21s patch-config postgresql0 postgresql.parameters.work_mem 32MB
at 21s expect parameter postgresql0 work_mem 32MB within=12s
at 36s expect parameter postgresql1 work_mem 32MB within=12s
end 50s
expect no-failover
expect lost=0
expect healthy within=30s
