-- Gives the copy of a claim's hold a lease, and takes its label away.
--
-- KEYS[1] the lock   KEYS[2] the marker of its slot
-- ARGV[1] owner id   ARGV[2] TTL in ms   ARGV[3] what the marker must be
--
-- Returns {1, ""} if the claim holds the key now, {0, ""} if there is nothing of it, {4, marker or ""} if that is another.
local held = redis.call('GET', KEYS[1])
local own = held and string.sub(held, 1, 32) == ARGV[1] and string.sub(held, 33, 33) == ':'
if own and not string.find(held, '=', 34, true) then
  -- The same again, because its first reply was lost.
  redis.call('PEXPIRE', KEYS[1], ARGV[2])
  return {1, ''}
end
local marker = redis.call('GET', KEYS[2])
if marker ~= ARGV[3] then
  return {4, marker or ''}
end
if not own then
  return {0, ''}
end
redis.call('SET', KEYS[1], (string.gsub(held, '=[^+]*', '')), 'PX', ARGV[2])
return {1, ''}
