-- Frees the key if the claim holds it, tells those who wait, and has every copy of its acquire refused that comes later.
--
-- KEYS[1] the lock, and the channel of its notices   KEYS[2] the fence counter of the lock's slot
-- ARGV[1] owner id   ARGV[2] for how many ms copies are refused
--
-- Returns 1 if it was freed, 0 if the claim does not hold the key.
local freed = 0
local held = redis.call('GET', KEYS[1])
if held and string.sub(held, 1, 32) == ARGV[1] then
  redis.call('DEL', KEYS[1])
  freed = 1
  if string.sub(held, -1) == '+' then
    -- A user who may not publish can still release; waiters then look again when the lease would have ended.
    redis.pcall('PUBLISH', KEYS[1], '')
  end
end
-- The counter is followed by the claims that were undone: ";<owner id>@<until when, in ms>" each, those in time only.
local time = redis.call('TIME')
local now = tonumber(time[1]) * 1000 + math.floor(tonumber(time[2]) / 1000)
local fence = redis.call('GET', KEYS[2]) or '0'
local kept = {string.match(fence, '^%d+')}
for owner, till in string.gmatch(fence, ';(%x+)@(%d+)') do
  if tonumber(till) > now and owner ~= ARGV[1] and #kept < 100 then
    kept[#kept + 1] = owner .. '@' .. till
  end
end
kept[#kept + 1] = ARGV[1] .. '@' .. string.format('%.0f', now + tonumber(ARGV[2]))
-- Fails if the memory is full; then a late acquire fails as well.
redis.pcall('SET', KEYS[2], table.concat(kept, ';'))
return freed
