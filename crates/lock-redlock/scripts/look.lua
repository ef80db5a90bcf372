-- Tells what this server remembers, and makes it remember the longest TTL that anybody asks for.
--
-- KEYS[1] what this server remembers   KEYS[2] the mark of a server that remembers nothing
-- ARGV[1] TTL in ms that the client asks for   ARGV[2] the server's run id, empty if it is not known
-- ARGV[3] "1" if the server logs each write   ARGV[4] a random mark
--
-- Returns {1, newest token, longest TTL in ms, ""} or {0, 0, 0, mark}.
local memory = redis.call('HMGET', KEYS[1], 'ttl', 'run')
local restarted = memory[1] and ARGV[2] ~= '' and memory[2] ~= ARGV[2]
if restarted and ARGV[3] ~= '1' then
  -- What a restarted server without a log remembers is a snapshot, older than its last votes.
  redis.call('DEL', KEYS[1])
  memory[1] = false
end
if not memory[1] then
  redis.call('SET', KEYS[2], ARGV[4], 'NX')
  return {0, 0, 0, redis.call('GET', KEYS[2])}
end
local longest = math.max(tonumber(memory[1]), tonumber(ARGV[1]))
if longest > tonumber(memory[1]) then
  redis.call('HSET', KEYS[1], 'ttl', longest)
end
if restarted then
  redis.call('HSET', KEYS[1], 'run', ARGV[2])
end
local newest = 0
local fields = redis.call('HGETALL', KEYS[1])
for i = 1, #fields, 2 do
  if fields[i] ~= 'ttl' and fields[i] ~= 'run' then
    newest = math.max(newest, tonumber(fields[i + 1]))
  end
end
return {1, string.format('%.0f', newest), longest, ''}
