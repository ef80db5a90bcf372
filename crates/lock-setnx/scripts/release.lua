-- Frees the key if the claim holds it or is next, and hands it on to the first who waits; else takes the claim out of
-- the queue.
--
-- KEYS[1] the lock   KEYS[2] the queue   ARGV[1] owner id
-- ARGV[2] what stands behind the owner id in the queue, if the claim may stand there
--
-- Returns 2 if the key was handed on, 1 if it was freed, 0 if it was not the claim's. Needs no memory.
local held = redis.call('GET', KEYS[1])
if not held or string.sub(held, 1, 32) ~= ARGV[1] then
  if ARGV[2] then
    redis.pcall('ZREM', KEYS[2], ARGV[1] .. ARGV[2], ARGV[1] .. '?')
  end
  return 0
end
if string.find(held, '[+~]', -1) then
  -- include queue.lua
  if hand_on(KEYS[1], KEYS[2]) then
    return 2
  end
end
redis.call('DEL', KEYS[1])
return 1
