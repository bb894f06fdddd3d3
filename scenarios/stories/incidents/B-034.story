# B-034: the guards themselves are there
# A refactoring broke the comparison by which replicas saw that the old primary was still writable; for some releases a guard
# existed only on paper. The answer is the zoo, which takes each guard away and must be found; this schedule is one where the old
# primary can be seen by everybody, and must not be overtaken before its right is over.
link https://github.com/patroni/patroni/pull/2773
stopped-by R01
returns-with GuardAsleep RightForever
cluster n1 n2 n3 failsafe_mode=off remove_data_directory_on_diverged_timelines=on
at 20s cut leader etcd way=there for=20s
at 50s freeze-agent leader for=10s
end 75s
expect no-dual-primary
expect healthy within=60s
