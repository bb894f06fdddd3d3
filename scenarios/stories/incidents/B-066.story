# B-066: the end of the archive is not the end of the WAL
# A replica recovered from the archive only, met a file that was not there yet, took that for the end and was promoted; what the
# primary archived later was lost.
link https://github.com/cloudnative-pg/cloudnative-pg/pull/10627
requires archive_recovery
cluster n1 n2 n3 archive_mode=on
node n2 bootstrap=off
node n3 bootstrap=off
at 20s stall-receiver n2 for=60s
at 20s stall-receiver n3 for=60s
at 21s slow n1 archive by=20s count=0
at 22s burst bytes=67108864
at 25s power-loss n1 back=60s
end 100s
expect no-dual-primary
expect lost=5
expect healthy within=90s
