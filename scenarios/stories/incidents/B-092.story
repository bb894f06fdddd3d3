# B-092: a position that is not told holds nobody back for good
# Positions were published as attributes; one came late or never, and the promotion was refused although a good candidate was there.
link https://github.com/ClusterLabs/PAF/issues/131
link https://github.com/ClusterLabs/PAF/issues/9
stopped-by R71
cluster n1 n2 n3 remove_data_directory_on_diverged_timelines=on
node n2 bootstrap=off
node n3 bootstrap=off
at 19s cut n2 n3 for=40s
at 20s power-loss n1 back=60s
at 21s expect writes within=19s
end 90s
expect no-dual-primary
expect healthy within=60s
