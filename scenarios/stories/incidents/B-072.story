# B-072: an incomplete copy is never elected
# The primary lost its power, a new one was made, another replica began to copy it anew; the new primary failed, the half copy was elected,
# and in the end everybody copied emptiness.
link https://github.com/sorintlab/stolon/issues/917
link https://github.com/gravitational/gravity/issues/2213
stopped-by R32
cluster n1 n2
node n2 bootstrap=off
at 20s when basebackup on=n2 after=50ms do power-loss n1 back=40s
at 20s reinit n2
at 45s expect no-primary
end 70s
expect never-primary n2
expect no-dual-primary
expect healthy within=60s
