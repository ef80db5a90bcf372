-- Gives a server that remembers nothing what the others know, and with it its vote.
--
-- KEYS[1] what this server remembers   KEYS[2] the mark of a server that remembers nothing
-- ARGV[1] the mark that was seen before the others were asked   ARGV[2] the newest token that they know
-- ARGV[3] the longest TTL that they know, in ms   ARGV[4] the server's run id
--
-- Returns 1 if it has its vote, 0 if it forgot once more meanwhile.
if redis.call('EXISTS', KEYS[1]) == 1 then
  return 1
end
if redis.call('GET', KEYS[2]) ~= ARGV[1] then
  return 0
end
redis.call('HSET', KEYS[1], 'floor', ARGV[2], 'ttl', ARGV[3], 'run', ARGV[4])
redis.call('DEL', KEYS[2])
return 1
