-- Sets the lease of a claim back to its full TTL, if the claim still holds the key. Never creates anything.
--
-- KEYS[1] the lock   ARGV[1] owner id   ARGV[2] TTL in ms
--
-- Returns 1 if it was renewed, 0 if the claim does not hold the key.
local held = redis.call('GET', KEYS[1])
if held and string.sub(held, 1, 32) == ARGV[1] then
  return redis.call('PEXPIRE', KEYS[1], ARGV[2])
end
return 0
