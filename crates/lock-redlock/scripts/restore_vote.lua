-- Gives a server that has forgotten what the others know, and with it its vote.
--
-- KEYS[1] what this server remembers; see survey.lua
-- ARGV[1] the mark that was seen before the others were asked   ARGV[2] the newest token that any of them knows
-- ARGV[3] the longest TTL that any of them knows, in ms
--
-- Returns 1 if it has its vote, 0 if it has forgotten once more meanwhile.
local floor, forgot = unpack(redis.call('HMGET', KEYS[1], 'floor', 'forgot'))
if floor and not forgot then
  return 1
end
if forgot ~= ARGV[1] then
  return 0
end
redis.call('HSET', KEYS[1], 'floor', ARGV[2], 'ttl', ARGV[3])
redis.call('HDEL', KEYS[1], 'forgot')
return 1
