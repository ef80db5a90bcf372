-- Holds the key for one claim if nobody holds it.
--
-- KEYS[1] the lock: "<owner id>:<token>", followed by "+" if somebody waits for its release
-- KEYS[2] the fence counter of the lock's slot, and the claims that were undone lately; see undo.lua
-- ARGV[1] owner id   ARGV[2] TTL in ms   ARGV[3] "1" if a refused claimant is going to wait
--
-- Returns {1, token} or {0, ms until the holder's lease ends}; nobody waits for the answer to a copy that is refused.
local held = redis.call('GET', KEYS[1])
if held then
  if string.sub(held, 1, 32) == ARGV[1] then
    -- The same claim again, because its first reply was lost.
    return {1, string.match(held, '^%x+:(%d+)')}
  end
  if ARGV[3] == '1' and string.sub(held, -1) ~= '+' then
    -- Fails if the memory is full; the waiter then looks again when the lease ends.
    redis.pcall('APPEND', KEYS[1], '+')
  end
  return {0, redis.call('PTTL', KEYS[1])}
end
-- The clock is a floor, so that tokens go on growing after a restart that lost the counter.
local time = redis.call('TIME')
local now = tonumber(time[1]) * 1000000 + tonumber(time[2])
local last, undone = string.match(redis.call('GET', KEYS[2]) or '0', '^(%d+)(.*)$')
if undone ~= '' and string.find(undone, ARGV[1], 1, true) then
  return {0, 0}
end
local token = string.format('%.0f', math.max(tonumber(last) + 1, now))
redis.call('SET', KEYS[2], token .. undone)
redis.call('SET', KEYS[1], ARGV[1] .. ':' .. token, 'NX', 'PX', ARGV[2])
return {1, token}
