# G-15: a replica that is cut off is promoted by hand, and nobody hears of it
# The others make a timeline of the same number, elsewhere. When it is back, both are called 2, and it must not be taken for one that follows.
returns-with UsurperUnknown
cluster n1 n2 n3 remove_data_directory_on_diverged_timelines=on
node n2 bootstrap=off
node n3 bootstrap=off
at 20s isolate n3 for=25s
at 21s promote-by-hand n3
at 25s power-loss n1 back=30s
end 60s
expect no-dual-primary
expect lost=5
expect healthy within=90s
