# B-063: the partition heals inside the failover
# The old primary came back while its successor was on its way; the service still routed to it, replicas connected to it again, and what
# was committed there was rewound away.
link https://github.com/cloudnative-pg/cloudnative-pg/pull/10409
stopped-by old-right
cluster n1 n2 n3 failsafe_mode=off remove_data_directory_on_diverged_timelines=on
router r1 poll=500ms
client c1 via=r1
at 20s isolate leader for=20s
at 20s when acquire do heal-network
at 60s isolate leader for=20s
at 60s when promote do heal-network
end 90s
expect no-dual-primary
expect healthy within=60s
