-- Does what release.lua does, and has every copy of the claim's acquire refused that comes later.
--
-- KEYS[1] the lock   KEYS[2] the queue   KEYS[3] the fence counter of the lock's slot; see acquire.lua
-- ARGV[1] owner id   ARGV[2] for how many ms copies are refused
-- ARGV[3] what stands behind the owner id in the queue
--
-- Returns what release.lua does.
-- include queue.lua
local held, freed = redis.call('GET', KEYS[1]), 0
if held and string.sub(held, 1, 32) == ARGV[1] then
  freed = string.find(held, '[+~]', -1) and hand_on(KEYS[1], KEYS[2]) and 2 or redis.call('DEL', KEYS[1])
end
redis.pcall('ZREM', KEYS[2], ARGV[1] .. ARGV[3], ARGV[1] .. '?')
local now, fence = clock(), redis.call('GET', KEYS[3]) or '0'
local kept = entries(fence, now)
if not string.find(kept, ARGV[1], 1, true) and #kept < 5000 then
  kept = kept .. ';' .. ARGV[1] .. '@' .. string.format('%.0f', now / 1000 + tonumber(ARGV[2]))
end
-- Fails if the memory is full; then a late acquire fails as well.
redis.pcall('SET', KEYS[3], string.match(fence, '^%d+') .. kept)
return freed
