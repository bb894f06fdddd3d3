# R6c: somebody promotes a replica by hand
# pg_ctl promote, past the agent, beside a primary that leads: nothing can prevent it, and the agent ends it when it sees it.
stopped-by R02
cluster n1 n2 n3 remove_data_directory_on_diverged_timelines=on
at 20s promote-by-hand replica
at 30s expect primary is=leader
end 40s
expect lost=5
expect promotions<=1
expect healthy within=90s
