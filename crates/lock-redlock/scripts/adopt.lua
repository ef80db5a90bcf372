-- Gives the copy of a hold a lease, if it is here and its slot is open in the epoch for which it was put; or prolongs
-- the lease of one that has one already. Never creates anything.
--
-- KEYS[1] the lock   KEYS[2] what this server remembers; see survey.lua
-- ARGV[1] owner id   ARGV[2] TTL in ms   ARGV[3] epoch   ARGV[4] register of the slot; see prepare.lua
--
-- Returns {"yes", ""}, {"none", ""} if nothing of the owner is here, {"closed", ""} if the slot is not open here in
-- that epoch, or {"forgot", mark or ""}.
local floor, forgot, accepted, learned = unpack(redis.call('HMGET', KEYS[2], 'floor', 'forgot',
  ARGV[4] .. ' accepted', ARGV[4] .. ' learned'))
if forgot or not floor then
  return {'forgot', forgot or ''}
end
local held = redis.call('GET', KEYS[1])
if not held or string.sub(held, 1, 32) ~= ARGV[1] then
  return {'none', ''}
end
local hold, copied_for, plus = string.match(held, '^(%x+:%d+@%d+)=(%d+):[^+]*(%+?)$')
if not hold then
  redis.call('PEXPIRE', KEYS[1], ARGV[2])
  return {'yes', ''}
end
local open = 'open ' .. ARGV[3]
for _, proposal in ipairs({accepted or '', learned or ''}) do
  if string.match(proposal, '^%S+ (.*)$') ~= open then
    return {'closed', ''}
  end
end
if copied_for ~= ARGV[3] then
  return {'none', ''}
end
redis.call('SET', KEYS[1], hold .. plus, 'PX', ARGV[2])
return {'yes', ''}
