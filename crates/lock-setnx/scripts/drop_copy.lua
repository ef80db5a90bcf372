-- Deletes a copy that nobody took over, and hands the key on to the first who waits.
--
-- KEYS[1] the lock   KEYS[2] the queue   ARGV[1] the copy; see put_copies.lua
--
-- Returns 2 if the key was handed on, 1 if it was freed, 0 if something else is there. Needs no memory.
local held = redis.call('GET', KEYS[1])
if held == ARGV[1] .. '+' then
  -- include queue.lua
  if hand_on(KEYS[1], KEYS[2]) then
    return 2
  end
elseif held ~= ARGV[1] then
  return 0
end
redis.call('DEL', KEYS[1])
return 1
