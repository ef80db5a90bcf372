-- Tells what is there.
--
-- KEYS names of markers or locks
--
-- Returns the value of each, or nothing in its place.
return redis.call('MGET', unpack(KEYS))
