# B-074: a primary whose disk gives errors is replaced
# A keeper with a broken filesystem went on to report itself and was not replaced.
link https://github.com/sorintlab/stolon/pull/637
requires disk_faults
stopped-by R41
cluster n1 n2 n3 primary_start_timeout=10 remove_data_directory_on_diverged_timelines=on
at 20s disk-error leader for=90s
at 21s expect writes within=39s
end 120s
expect no-dual-primary
expect healthy within=90s
