-- Deletes the copy of a hold, if it is here as it was put, and hands the key on to the first who waits.
--
-- KEYS[1] the lock   KEYS[2] the queue; see queue.lua
-- ARGV[1] "<owner id>:<token>@<epoch>"   ARGV[2] label
--
-- Returns 1 if it was deleted, 2 more if the key was handed on, 0 if it is not here. Uses no command that needs memory.
local held = redis.call('GET', KEYS[1])
local hold, label, plus = string.match(held or '', '^(%x+:%d+@%d+)=%d+:([^+]*)(%+?)$')
if hold ~= ARGV[1] or label ~= ARGV[2] then
  return 0
end
redis.call('DEL', KEYS[1])
if plus == '+' then
  -- include queue.lua
  if hand_on(KEYS[1], KEYS[2], clock()) then
    return 3
  end
end
return 1
