-- Takes the markers away if the server may have come back with older ones: one that was restarted, unless its log has
-- all that it was told.
--
-- KEYS[1] the run of the server for which the markers are true: "<run id> <1 if each write was logged in that run>"
-- KEYS[2], KEYS[3]... the markers
-- ARGV[1] the server's run id   ARGV[2] "1" if it logs each write
--
-- Returns 1 if they were taken away.
local known, lost = redis.call('GET', KEYS[1]), 0
local present = ARGV[1] .. ' ' .. ARGV[2]
if known == present then
  return 0
end
if known and string.match(known, '^%S+') ~= ARGV[1] and (string.sub(known, -1) ~= '1' or ARGV[2] ~= '1') then
  redis.call('DEL', unpack(KEYS, 2))
  lost = 1
end
redis.call('SET', KEYS[1], present)
return lost
