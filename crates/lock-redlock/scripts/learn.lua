-- Learns what was agreed on, and accepts it too where that was missed; see prepare.lua.
--
-- KEYS[1] what this server remembers; see survey.lua
-- ARGV    register, ballot and value of each
--
-- Returns {"yes", ""} or {"forgot", mark or ""}.
local floor, forgot = unpack(redis.call('HMGET', KEYS[1], 'floor', 'forgot'))
if forgot or not floor then
  return {'forgot', forgot or ''}
end
for i = 1, #ARGV, 3 do
  local register, ballot, proposal = ARGV[i], ARGV[i + 1], ARGV[i + 1] .. ' ' .. ARGV[i + 2]
  local promised, learned = unpack(redis.call('HMGET', KEYS[1], register .. ' promised', register .. ' learned'))
  if not promised or promised <= ballot then
    redis.call('HSET', KEYS[1], register .. ' promised', ballot, register .. ' accepted', proposal)
  end
  if not learned or learned < proposal then
    redis.call('HSET', KEYS[1], register .. ' learned', proposal)
  end
end
return {'yes', ''}
