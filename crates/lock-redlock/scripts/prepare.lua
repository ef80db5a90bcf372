-- Promises to accept nothing of a smaller ballot, and tells what was accepted last.
--
-- A register has three fields in what this server remembers. Ballots have a fixed width and digits only, so that they
-- compare as text.
--   <register> promised   the largest ballot that this server has promised to, or accepted
--   <register> accepted   "<ballot> <value>" that it accepted last: agreed on, if a majority accepted it
--   <register> learned    "<ballot> <value>" that was agreed on last, as far as it was told
--
-- KEYS[1] what this server remembers; see survey.lua
-- ARGV[1] register   ARGV[2] ballot
--
-- Returns {"yes", what was accepted last or ""}, {"outbid", the ballot that was promised}, or {"forgot", mark or ""}.
local floor, forgot, promised, accepted = unpack(redis.call('HMGET', KEYS[1], 'floor', 'forgot',
  ARGV[1] .. ' promised', ARGV[1] .. ' accepted'))
if forgot or not floor then
  return {'forgot', forgot or ''}
end
if promised and promised > ARGV[2] then
  return {'outbid', promised}
end
redis.call('HSET', KEYS[1], ARGV[1] .. ' promised', ARGV[2])
return {'yes', accepted or ''}
