-- Sets the leases of claims back to their full TTL, each if the claim still holds its key. Never creates anything.
--
-- KEYS the locks   ARGV[1] TTL in ms   ARGV[2..] the owner id of each
--
-- Returns for each lock 1 if it was renewed, 0 if the claim does not hold the key.
local renewed = {}
for index, lock in ipairs(KEYS) do
  local held = redis.pcall('GET', lock)
  -- What another program put there, which may be no text, does not keep the others from being renewed.
  if type(held) == 'table' and not string.find(held.err, '^WRONGTYPE') then
    return held
  end
  local is_held = type(held) == 'string' and string.sub(held, 1, 32) == ARGV[index + 1]
  renewed[index] = is_held and redis.call('PEXPIRE', lock, ARGV[1]) or 0
end
return renewed
