# B-089: a replica that comes back does not overrule a promotion
# An isolated replica compared its own position with that of the promoted node before its promotion, found itself ahead, won its
# "election", and called its scripts against the wrong host.
link https://github.com/EnterpriseDB/repmgr/issues/420
stopped-by R72
cluster n1 n2 n3 remove_data_directory_on_diverged_timelines=on
node n2 bootstrap=off
node n3 bootstrap=off
at 19s isolate n3 for=20s
at 20s power-loss n1 back=60s
at 20s expect primary is=n2 within=20s
end 90s
expect never-primary n3
expect no-dual-primary
expect healthy within=60s
