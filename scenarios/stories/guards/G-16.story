# G-16: a person promotes a replica in the instant in which its agent takes the lock
# It has not come to the last primary's timeline, so PostgreSQL takes that one's number once more, and from where that began. The agent reserved another.
returns-with UsurperUnknown
cluster n1 n2 n3 remove_data_directory_on_diverged_timelines=on
node n2 bootstrap=off
node n3 bootstrap=off
at 20s cut n3 peers for=30s
at 20s cut n3 etcd for=10s
at 20s power-loss n1 back=40s
at 30s power-loss n2
at 31s slow-link n3 etcd by=8ms for=15s
at 31s when acquire on=n3 do promote-by-hand here
at 50s expect primary is=n3
at 70s expect writes within=5s
end 80s
expect no-dual-primary
expect promotions<=3
