-- Gives a server that has forgotten what the others know, and with it its vote.
--
-- KEYS[1] what this server remembers; see survey.lua
-- ARGV[1] the mark that was seen before the others were asked   ARGV[2] the newest token that any of them knows
-- ARGV[3] the longest TTL that any of them knows, in ms   ARGV[4...] fields of registers and what is to be in them
--
-- Returns 1 if it has its vote, 0 if it has forgotten once more meanwhile.
local floor, forgot = unpack(redis.call('HMGET', KEYS[1], 'floor', 'forgot'))
if floor and not forgot then
  return 1
end
if forgot ~= ARGV[1] then
  return 0
end
-- What it was loaded with may be older than what it has promised since.
local fields = redis.call('HGETALL', KEYS[1])
for i = 1, #fields, 2 do
  if string.find(fields[i], ' ', 1, true) then
    redis.call('HDEL', KEYS[1], fields[i])
  end
end
redis.call('HSET', KEYS[1], 'floor', ARGV[2], 'ttl', ARGV[3], unpack(ARGV, 4))
redis.call('HDEL', KEYS[1], 'forgot')
return 1
