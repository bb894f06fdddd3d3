# G-13: the others have heard of a shorter ttl, the leader has not
# Its right is counted by the ttl it claims, not by one's own.
returns-with OwnTtlForOthers
cluster n1 n2 n3 ttl=15 failsafe_mode=off remove_data_directory_on_diverged_timelines=on
node n2 bootstrap=off
node n3 bootstrap=off
at 20s freeze-agent n1 for=8s
at 20100ms set ttl 3
at 22500ms kill-agent n2 back=100ms
at 22500ms kill-agent n3 back=100ms
at 23s lease-early n1
end 60s
expect no-dual-primary
expect healthy within=60s
