# R6d: a replica that somebody promoted by hand, and then the leader is lost
# Its timeline is the highest, and nobody reserved it. The other replica has what clients were told of, and is elected.
stopped-by usurped
returns-with UsurperUnknown
cluster n1 n2 n3 remove_data_directory_on_diverged_timelines=on
node n2 bootstrap=off
node n3 bootstrap=off
at 20s promote-by-hand n2
at 20500ms power-loss n1 back=30s
at 40s expect primary is=n3
end 60s
expect no-dual-primary
expect lost=5
expect healthy within=90s
