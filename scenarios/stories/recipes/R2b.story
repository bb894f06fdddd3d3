# R2b: a guard that sleeps
# The guard is stopped together with its agent; the kernel, not the guard, must be what ends the server then, or nobody acknowledges.
cluster n1 n2 n3 failsafe_mode=off remove_data_directory_on_diverged_timelines=on
at 20s freeze-guard leader for=4s
at 40s kill-guard leader
at 60s kill-guard candidate
end 80s
expect no-dual-primary
expect healthy within=60s
