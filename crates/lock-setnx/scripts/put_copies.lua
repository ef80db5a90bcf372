-- Puts copies of holds there, which do not end by themselves.
--
-- KEYS[1] the marker of their slot   KEYS[2], KEYS[3]... the locks
-- ARGV[1] what the marker must be
-- ARGV[2], ARGV[3]... the copies: "<owner id>:<token>@<its epoch>=copy:<cluster>:<move>"
--
-- Returns 1 if they were put, 0 if the marker is another.
if redis.call('GET', KEYS[1]) ~= ARGV[1] then
  return 0
end
for i = 2, #KEYS do
  redis.call('SET', KEYS[i], ARGV[i])
end
return 1
