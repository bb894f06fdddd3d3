# B-022: a switchover without a candidate goes to a synchronous replica
# An asynchronous replica that had everything was quicker with the lock than the synchronous one.
link https://github.com/patroni/patroni/issues/2405
requires synchronous_mode
cluster n1 n2 n3 synchronous_mode=on
at 20s slow-link candidate leader by=300ms for=20s
at 22s switchover
end 45s
expect no-dual-primary
expect lost=0
expect healthy within=40s
