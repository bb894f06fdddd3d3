# G-05: the last member that is left may never lead
# The tag nofailover holds even if nobody else is there.
stopped-by nofailover
returns-with NofailoverUnheeded
cluster n1 n2 failsafe_mode=off
node n2 nofailover=on bootstrap=off
at 20s power-loss n1 back=30s
at 45s expect no-primary
end 60s
expect no-dual-primary
expect never-primary n2
expect healthy within=60s
