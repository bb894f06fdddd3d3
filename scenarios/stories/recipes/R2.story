# R2: freezes of agent, PostgreSQL and host that overlap on two nodes
# From a tenth of the ttl to five times it; what is frozen on one node wakes while another still sleeps.
returns-with GuardAsleep RightForever
cluster n1 n2 n3 remove_data_directory_on_diverged_timelines=on
at 20s freeze-agent leader for=500ms
at 25s freeze-agent leader for=7s
at 27s freeze-agent candidate for=9s
at 50s freeze-postgres leader for=6s
at 52s freeze-agent candidate for=4s
at 75s pause-host leader for=12s
at 78s pause-host candidate for=12s
at 110s freeze-agent leader for=25s
at 112s freeze-postgres candidate for=20s
end 145s
expect no-dual-primary
expect healthy within=90s
