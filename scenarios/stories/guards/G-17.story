# G-17: who leads by a person's word is lost before the failsafe list names it
# The one that the list names has what the new timeline left out. The leader named itself before it was promoted, and leads again.
returns-with PromotedUnlisted
cluster n1 n2 n3 failsafe_mode=on remove_data_directory_on_diverged_timelines=on
node n2 bootstrap=off
node n3 bootstrap=off
at 20s cut n3 etcd for=20s
at 38s cut n3 peers for=60s
at 39s power-loss n1
at 41s failover to=n3
at 41s when lock-taken on=n3 do lose here request rpc=txn count=1 for=5s
at 41s when lock-taken on=n3 after=300ms do cancel-failover
at 41s when promoted on=n3 after=580ms do power-loss here back=10s
at 42s cut n2 etcd for=14s
at 80s expect primary is=n3
end 100s
expect no-dual-primary
expect promotions<=2
expect healthy within=90s
