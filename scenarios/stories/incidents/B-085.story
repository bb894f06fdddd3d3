# B-085: a primary and its clients are alone, without failsafe
# An isolated primary needed twenty seconds until it stopped itself, while the monitor could already have promoted another.
link https://github.com/hapostgres/pg_auto_failover/issues/12
stopped-by R01
cluster n1 n2 n3 failsafe_mode=off remove_data_directory_on_diverged_timelines=on
node n2 bootstrap=off
node n3 bootstrap=off
client c1
client c2 beside=n1
at 20s isolate n1 clients=on for=30s
at 26s expect role n1 down within=1s
at 21s expect writes within=11s
end 60s
expect no-dual-primary
expect healthy within=60s
