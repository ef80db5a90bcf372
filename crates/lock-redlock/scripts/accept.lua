-- Accepts a value, unless this server has promised to wait for a larger ballot; see prepare.lua.
--
-- KEYS[1] what this server remembers; see survey.lua
-- ARGV[1] register   ARGV[2] ballot   ARGV[3] value
--
-- Returns {"yes", ""}, {"outbid", the ballot that was promised}, or {"forgot", mark or ""}.
local floor, forgot, promised = unpack(redis.call('HMGET', KEYS[1], 'floor', 'forgot', ARGV[1] .. ' promised'))
if forgot or not floor then
  return {'forgot', forgot or ''}
end
if promised and promised > ARGV[2] then
  return {'outbid', promised}
end
redis.call('HSET', KEYS[1], ARGV[1] .. ' promised', ARGV[2], ARGV[1] .. ' accepted', ARGV[2] .. ' ' .. ARGV[3])
return {'yes', ''}
