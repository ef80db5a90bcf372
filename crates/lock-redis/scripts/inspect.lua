-- Tells who holds the key.
--
-- KEYS[1] the lock
--
-- Returns {owner id, token, ms until the lease ends}, or nothing if the key is free.
local held = redis.call('GET', KEYS[1])
if held then
  local owner, token = string.match(held, '^(%x+):(%d+)')
  return {owner, token, redis.call('PTTL', KEYS[1])}
end
return {}
