# R6e: somebody promotes by hand a replica that another one streams from
# The other one may have heard of the new timeline before it is pointed at the leader, and PostgreSQL asks for that as long as it runs.
seed 119
cluster n1 n2 n3 remove_data_directory_on_diverged_timelines=on
node n2 bootstrap=off
node n3 bootstrap=off replicatefrom=n2
at 20s promote-by-hand n2
at 30s expect primary is=n1
end 40s
expect lost=5
expect promotions<=1
expect healthy within=90s
