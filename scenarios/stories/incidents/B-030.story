# B-030: a switchover to a named candidate works in every mode of replication
# A named candidate was also held against the quorum, so that no switchover was possible in quorum mode.
link https://github.com/patroni/patroni/issues/3307
requires synchronous_mode
cluster n1 n2 n3 synchronous_mode=quorum
node n2 bootstrap=off
node n3 bootstrap=off
at 20s switchover to=n2
at 20s expect role n1 replica within=2s
end 50s
expect no-dual-primary
expect lost=0
expect healthy within=30s
