# G-12: the pause ends for all but the primary
# Its deadline was lifted for the pause, and its agent sleeps when that ends: nobody may lead beside it.
returns-with UnfencedUnheeded
cluster n1 n2 n3 failsafe_mode=off remove_data_directory_on_diverged_timelines=on
node n2 bootstrap=off
node n3 bootstrap=off
at 20s pause for=15s
at 25s freeze-agent n1 for=40s
at 60s expect role n2 replica
at 60s expect role n3 replica
end 75s
expect no-dual-primary
expect healthy within=60s
