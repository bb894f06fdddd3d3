# B-086: an old primary comes back and finds itself replaced
# The host of a primary was off, a replica was promoted, the host came back and PostgreSQL started read-write, since nothing asked whether it
# might.
link https://github.com/EnterpriseDB/repmgr/issues/766
link https://github.com/EnterpriseDB/repmgr/issues/42
link https://github.com/EnterpriseDB/repmgr/issues/212
link https://github.com/EnterpriseDB/repmgr/issues/496
stopped-by R42
cluster n1 n2 n3 remove_data_directory_on_diverged_timelines=on
node n2 bootstrap=off
node n3 bootstrap=off
at 20s power-loss n1 back=25s
at 46s expect role n1 replica within=40s
end 90s
expect no-dual-primary
expect healthy within=60s
