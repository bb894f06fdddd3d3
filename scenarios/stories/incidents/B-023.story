# B-023: the sync key and synchronous_standby_names drift apart
# An agent restarted in a pause dropped the setting that makes commits wait, or a person reset it, while etcd went on to name a replica
# as synchronous. That one was promoted without the last commits.
link https://github.com/patroni/patroni/pull/2877
requires synchronous_mode reset_settings
cluster n1 n2 n3 synchronous_mode=on
at 20s pause for=10s
at 22s kill-agent leader back=2s
at 40s reset-setting leader synchronous_standby_names
at 41s power-loss leader back=30s
end 80s
expect no-dual-primary
expect lost=0
expect healthy within=60s
