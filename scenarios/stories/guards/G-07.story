# G-07: of two replicas the one with more is elected
# One replica lost its stream two seconds before the primary died: within the lag limit, but not the best.
stopped-by peer-ahead
returns-with PeersUnasked PeerAheadUnheeded
cluster n1 n2 n3 failsafe_mode=off remove_data_directory_on_diverged_timelines=on
node n2 bootstrap=off
node n3 bootstrap=off
at 19s cut n1 n3 for=10s
at 21s power-loss n1 back=30s
at 34s expect primary is=n2
end 60s
expect never-primary n3
expect no-dual-primary
expect healthy within=60s
