# G-01: a lock that is free before the old right is over
# The lease ends early and its holder cannot hear of it: the others have the lock before them for seconds and must not use it.
returns-with NoOldRight OldRightIgnored RenewalsUnseen
cluster n1 n2 n3 failsafe_mode=off remove_data_directory_on_diverged_timelines=on
node n2 bootstrap=off
node n3 bootstrap=off
at 20s cut n1 etcd for=20s
at 20010ms lease-early n1
end 50s
expect no-dual-primary
expect healthy within=60s
