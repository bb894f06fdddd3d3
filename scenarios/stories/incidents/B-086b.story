# B-086b: an old primary comes back without a network
# As B-086, and the host cannot even see that it was replaced.
link https://github.com/EnterpriseDB/repmgr/issues/620
stopped-by R12
cluster n1 n2 n3 remove_data_directory_on_diverged_timelines=on
node n2 bootstrap=off
node n3 bootstrap=off
client c1
client c2 beside=n1
at 20s power-loss n1 back=25s
at 40s isolate n1 for=30s
at 65s expect role n1 down
end 75s
expect no-dual-primary
expect healthy within=60s
