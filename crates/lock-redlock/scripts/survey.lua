-- Tells what this server remembers, and makes it remember the longest TTL that anybody asks for. Over a new connection
-- it also takes the vote from a server that was restarted, unless its log has all that it voted for.
--
-- KEYS[1] what this server remembers: a hash of fence counters, of registers (whose names have a space; see
--         prepare.lua), and of
--           floor   the newest token that was known when it got its vote; without it, it never had one
--           ttl     the longest TTL in ms
--           run     the run id for which all this is true   log   "1" if each write was logged in that run
--           forgot  a mark, other at each loss, of a server that may have forgotten votes: it has none until it is gone
-- ARGV[1] TTL in ms that the client asks for   ARGV[2] the server's run id   ARGV[3] "1" if the server logs each write
-- ARGV[4] a random mark   ARGV[5] "1" over a new connection, when run id and log are certain
--
-- Returns {"votes", the newest token, the longest TTL in ms, ""}, or {"forgot", ...the same..., mark}; "new" in place
-- of "forgot" if it never had a vote.
local floor, ttl, run, log, forgot = unpack(redis.call('HMGET', KEYS[1], 'floor', 'ttl', 'run', 'log', 'forgot'))
local certain = ARGV[5] == '1'
local restarted = certain and run ~= ARGV[2]
-- What was loaded may be older than the last votes, and an earlier loss older than the last vote after it.
local stale = restarted and (forgot or log ~= '1' or ARGV[3] ~= '1')
if stale or not floor and not forgot then
  forgot = ARGV[4]
  redis.call('HSET', KEYS[1], 'forgot', forgot)
end
if not run or certain and (restarted or log ~= ARGV[3]) then
  redis.call('HSET', KEYS[1], 'run', ARGV[2], 'log', ARGV[3])
end
local longest = math.max(tonumber(ttl or 0), tonumber(ARGV[1]))
if longest > tonumber(ttl or 0) then
  redis.call('HSET', KEYS[1], 'ttl', longest)
end
local newest, others = 0, {ttl = true, run = true, log = true, forgot = true}
local fields = redis.call('HGETALL', KEYS[1])
for i = 1, #fields, 2 do
  if not others[fields[i]] and not string.find(fields[i], ' ', 1, true) then
    newest = math.max(newest, tonumber(fields[i + 1]))
  end
end
local state = not forgot and 'votes' or floor and 'forgot' or 'new'
return {state, string.format('%.0f', newest), longest, forgot or ''}
