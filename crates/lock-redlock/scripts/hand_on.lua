-- Hands on a key whose reservation ran out, because its waiter did not come.
--
-- KEYS[1] the lock   KEYS[2] the queue; see queue.lua
--
-- Returns 1 if it is reserved for the next, else 0.
-- include queue.lua
return redis.call('EXISTS', KEYS[1]) == 0 and hand_on(KEYS[1], KEYS[2], clock()) and 1 or 0
