# B-044: a timeline is missing from the history that a member fetches
# Two failovers came in quick succession. The node promoted last took its history from an archive that did not have the middle timeline
# yet; a member of that timeline concluded that it need not be rewound, and never joined again.
link https://github.com/patroni/patroni/issues/2118
link https://github.com/patroni/patroni/issues/2124
requires archive_history
stopped-by R43
cluster n1 n2 n3 use_pg_rewind=on remove_data_directory_on_diverged_timelines=on
at 20s power-loss leader back=40s
at 20s when promoted do power-loss here back=40s
at 20s lose-history any for=60s
end 90s
expect no-dual-primary
expect healthy within=90s
