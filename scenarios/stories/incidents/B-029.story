# B-029: a replica that joins and leaves at once
# Between two looks a replica had joined and left; the solver of the quorum then computed a set larger than the candidates and threw.
link https://github.com/patroni/patroni/pull/3278
requires synchronous_mode
cluster n1 n2 n3 synchronous_mode=quorum synchronous_node_count=1 remove_data_directory_on_diverged_timelines=on
at 20s stop-agent replica back=700ms
at 22s stop-agent replica back=700ms
at 24s kill-postgres candidate
at 26s power-loss leader back=20s
end 60s
expect no-dual-primary
expect lost=0
expect healthy within=60s
