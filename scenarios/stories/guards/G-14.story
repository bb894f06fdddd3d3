# G-14: clients are let in to see what no other disk has
# The primary's host is lost with a commit that one standby has, and that one is promoted; another comes to it seconds later.
returns-with GateOpenedAtOnce
cluster n1 n2 n3 synchronous_mode=on synchronous_gate_timeout=30 synchronous_gate_hold=on remove_data_directory_on_diverged_timelines=on
at 20s cut n2 n3 for=14s
at 20s power-loss leader back=20s
end 50s
expect no-dual-primary
expect lost=0
expect healthy within=60s
