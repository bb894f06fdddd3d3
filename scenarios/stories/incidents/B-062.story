# B-062: the replica that was away longest comes back first
# One replica was down early, commits went on, then all nodes went down; that replica came back before the others and was promoted, and
# everything since was gone.
link https://github.com/cloudnative-pg/cloudnative-pg/issues/1688
stopped-by lag-too-high
returns-with LagUnheeded
cluster n1 n2 n3 failsafe_mode=off remove_data_directory_on_diverged_timelines=on
node n2 bootstrap=off
node n3 bootstrap=off
at 20s power-loss n3
at 22s burst bytes=67108864
at 40s power-loss n1
at 40s power-loss n2
at 45s power-on n3
at 65s expect role n3 replica within=5s
at 70s expect never-primary n3
at 71s power-on n1
at 72s power-on n2
end 75s
expect no-dual-primary
expect healthy within=60s
