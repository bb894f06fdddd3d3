# G-06: the primary dies in a pause
# Nobody is promoted while the cluster is paused, whatever the lock says.
stopped-by R10
cluster n1 n2 n3 failsafe_mode=off remove_data_directory_on_diverged_timelines=on
node n2 bootstrap=off
node n3 bootstrap=off
at 20s pause
at 23s kill-postgres n1
at 26s stop-agent n1
at 45s expect role n2 replica
at 45s expect role n3 replica
end 50s
expect no-dual-primary
expect healthy within=60s
