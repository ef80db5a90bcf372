-- Frees the key if the claim holds it, and tells those who wait.
--
-- KEYS[1] the lock, and the channel of its notices   ARGV[1] owner id
--
-- Returns 1 if it was freed, 0 if the claim does not hold the key. Uses no command that needs memory.
local held = redis.call('GET', KEYS[1])
if not held or string.sub(held, 1, 32) ~= ARGV[1] then
  return 0
end
redis.call('DEL', KEYS[1])
if string.sub(held, -1) == '+' then
  -- A user who may not publish can still release; waiters then look again when the lease would have ended.
  redis.pcall('PUBLISH', KEYS[1], '')
end
return 1
