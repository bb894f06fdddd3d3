# R1: every request to etcd is lost, late, repeated or answered with an error
# One recipe for much of what bit others: no request, no reply, slow, each error, an answer from the past; on every member.
cluster n1 n2 n3
at 20s lose leader request count=2
at 23s lose leader reply count=2
at 26s lose replica twice count=3
at 29s delay leader by=900ms count=3
at 32s delay replica by=3s count=5
at 36s etcd-error leader unavailable count=2
at 39s etcd-error replica timeout count=4 applied=on
at 42s etcd-error any unknown count=3
at 45s stale-reads any for=3s
at 50s slow-etcd all by=300ms for=5s
at 58s lossy-link leader etcd percent=20 for=5s
end 70s
expect no-dual-primary
expect lost=0
expect healthy within=40s
