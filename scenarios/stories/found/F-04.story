# F-04: two timelines want the same number
# Found by the simulation (FOUND.md 4): the maker of a timeline died before its next renewal told of it, and the next primary made the same number.
# (It is cut off from its replicas, or they would have the number from its history.)
stopped-by R70
returns-with TimelineNotReserved
cluster n1 n2 n3 remove_data_directory_on_diverged_timelines=on
at 20s power-loss leader back=40s
at 20s when promote do cut here replicas for=10s
at 20s when promoted do power-loss here back=40s
at 75s power-loss leader back=40s
at 75s when promoted do isolate here for=10s
end 130s
expect no-dual-primary
expect healthy within=90s
