-- Changes the marker of a slot.
--
-- KEYS[1] the marker   ARGV[1] what it is, "" if there must be none   ARGV[2] what it becomes
--
-- Returns 1 if it was changed, 0 if it is another.
if (redis.call('GET', KEYS[1]) or '') ~= ARGV[1] then
  return 0
end
redis.call('SET', KEYS[1], ARGV[2])
return 1
