# B-061: an isolated primary with clients beside it
# The primary's node lost its network and another was promoted; nothing on the isolated node stopped the old primary, which went on to
# serve its local clients.
link https://github.com/cloudnative-pg/cloudnative-pg/issues/7407
link https://github.com/cloudnative-pg/cloudnative-pg/issues/7465
stopped-by R01
cluster n1 n2 n3 remove_data_directory_on_diverged_timelines=on
node n2 bootstrap=off
node n3 bootstrap=off
at 20s isolate n1 clients=on for=30s
at 21s expect writes within=11s
at 26s expect role n1 down within=1s
end 60s
expect no-dual-primary
expect healthy within=60s
