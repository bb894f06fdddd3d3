# F-02: a promotion of unknown end
# Found by the simulation (FOUND.md 2): a promotion finished after the deadline was lifted, because its agent slept between order and answer.
stopped-by R70
returns-with UnknownPromotion
cluster n1 n2 n3 failsafe_mode=off remove_data_directory_on_diverged_timelines=on
at 19s slow replica promote by=6s
at 20s power-loss leader back=30s
at 20s when promote do freeze-agent here for=6s
at 55s slow replica promote by=9s
at 55s power-loss leader back=30s
at 55s when promote do kill-agent here back=1s
end 100s
expect no-dual-primary
expect healthy within=90s
