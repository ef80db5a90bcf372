-- Tells the name that the server has for good.
--
-- KEYS[1] the name   ARGV[1] that of a server which has none yet
--
-- Returns it.
redis.call('SET', KEYS[1], ARGV[1], 'NX')
return redis.call('GET', KEYS[1])
