# B-100: a token runs out in the midst of any request
# Releases of etcd that closed security holes began to ask for a token where none had been needed: keep-alives and the list of members failed for clients
# that did not send one.
link https://github.com/patroni/patroni/issues/3573
requires etcd_auth
cluster n1 n2 n3
at 20s expire-token leader
at 25s when renew on=leader do expire-token here
at 30s when member do expire-token here
at 35s when read do expire-token here
end 50s
expect no-failover
expect lost=0
expect healthy within=20s
