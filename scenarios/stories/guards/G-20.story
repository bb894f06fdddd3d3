# G-20: etcd is lost for longer than a ttl, without failsafe_mode, and the primary reaches it a second after the others
# The primary stops when its right ends, as it must, and its key still stands when etcd is back. It has all that clients were told of, so it is given
# the time to renew before anybody takes its key away.
returns-with ReturnUnawaited
cluster n1 n2 n3 failsafe_mode=off use_pg_rewind=on
client c1
at 20s kill-etcd all back=12s
at 20s cut leader etcd for=13s
end 60s
expect no-dual-primary
expect lost=0
expect promotions<=0
expect healthy within=30s
