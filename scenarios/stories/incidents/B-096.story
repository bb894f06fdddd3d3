# B-096: a deposed etcd leader confirms keep-alives that nobody else knows of
# The mirror image of B-095: a client at the hanging leader was told "renewed" while the new leader let the lease run out.
link https://github.com/etcd-io/etcd/issues/15247
stopped-by R60
returns-with RenewWithoutTransaction
cluster n1 n2 n3 failsafe_mode=off remove_data_directory_on_diverged_timelines=on
etcd e1@n1 e2@n2 e3@n3
at 20s depose-etcd for=4s
at 35s cut leader etcd way=back for=8s
at 50s depose-etcd for=10s
end 70s
expect no-dual-primary
expect healthy within=60s
