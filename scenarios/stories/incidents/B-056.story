# B-056: no synchronous replica is known, and the primary cannot start
# Every replica was tagged nosync, so the list of synchronous replicas was empty. The primary gave up its lock because its start took too
# long, and an asynchronous replica within the lag limit was promoted without the last commits.
link https://github.com/patroni/patroni/issues/2819
requires synchronous_mode
cluster n1 n2 n3 synchronous_mode=on primary_start_timeout=10
node n2 nosync=on bootstrap=off
node n3 nosync=on bootstrap=off
at 20s disk-full n1 for=60s
end 100s
expect no-dual-primary
expect lost=0
expect healthy within=60s
