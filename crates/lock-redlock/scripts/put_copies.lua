-- Puts copies of holds here, without an end, if the slot is being prepared.
--
-- KEYS[1] what this server remembers; see survey.lua   KEYS[2...] the locks
-- ARGV[1] register of the slot; see prepare.lua   ARGV[2] what it must say   ARGV[3...] what to keep under each lock
--
-- Returns {"yes", ""}, {"closed", ""} if the slot is not being prepared here, or {"forgot", mark or ""}.
local floor, forgot, accepted, learned = unpack(redis.call('HMGET', KEYS[1], 'floor', 'forgot',
  ARGV[1] .. ' accepted', ARGV[1] .. ' learned'))
if forgot or not floor then
  return {'forgot', forgot or ''}
end
for _, proposal in ipairs({accepted or '', learned or ''}) do
  if string.match(proposal, '^%S+ (.*)$') ~= ARGV[2] then
    return {'closed', ''}
  end
end
for i = 2, #KEYS do
  redis.call('SET', KEYS[i], ARGV[i + 1])
end
return {'yes', ''}
