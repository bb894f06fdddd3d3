# F-11: the agent restarts between promotion and first checkpoint
# Found by the simulation (FOUND.md 11): the checkpoint was never made, and pg_rewind of the others found nothing to do.
stopped-by R44
cluster n1 n2 n3 use_pg_rewind=on
at 19s slow any checkpoint by=15s count=0
at 20s isolate leader for=20s
at 20s when promoted do kill-agent here back=1s
end 60s
expect no-dual-primary
expect healthy within=90s
