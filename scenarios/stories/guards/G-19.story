# G-19: etcd has no space for longer than a ttl, and then the leader's lease ends early
# Its lease lived on without a word in `status`, its agent is dead, and its last word is older than a ttl: nobody could tell until when it may
# write. So such a renewal gives no right; the grants of the others do.
returns-with SilentRenewalCounts
cluster n1 n2 n3 failsafe_mode=on remove_data_directory_on_diverged_timelines=on
at 20s read-only for=9s
at 28600ms kill-agent leader back=30s
at 28700ms lease-early leader
end 60s
expect no-dual-primary
expect lost=0
expect healthy within=60s
