# B-032: replicas do not wait for a demoted leader that cannot take the lock
# The lock was lost while the replicas still reached the old leader; they cut their replication, the old leader demoted itself and was
# ahead by a little for ever, and nobody thought himself fit. One site had an outage of an hour.
link https://github.com/patroni/patroni/issues/2070
link https://github.com/patroni/patroni/issues/251
link https://github.com/patroni/patroni/issues/1894
stopped-by R71
cluster n1 n2 n3 failsafe_mode=off remove_data_directory_on_diverged_timelines=on
at 20s cut leader etcd for=40s
at 21s expect writes within=14s
end 70s
expect no-dual-primary
expect healthy within=60s
