-- Gives this server's vote to a claim, if nobody has it and no newer token was ever given here.
--
-- KEYS[1] the lock: "<owner id>:<token>", followed by "+" if somebody waits for its release
-- KEYS[2] what this server remembers; see survey.lua
-- ARGV[1] owner id   ARGV[2] TTL in ms   ARGV[3] "1" if a refused claimant is going to wait
-- ARGV[4] the field of the lock's fence counter   ARGV[5] the token that the claim proposes
--
-- Returns {"granted", token, ""}, {"busy", ms until the holder's lease ends, owner id}, {"stale", the newest token, ""}
-- {"forgot", 0, mark or "" before survey.lua set one}, or {"foreign", 0, ""} if another program keeps something there.
local floor, forgot, counter = unpack(redis.call('HMGET', KEYS[2], 'floor', 'forgot', ARGV[4]))
if forgot or not floor then
  -- This server could vote a second time, and for a token that is older than one it has voted for.
  return {'forgot', 0, forgot or ''}
end
local held = redis.call('GET', KEYS[1])
local waited_for = ''
if held then
  local owner, token, plus = string.match(held, '^(%x+):(%d+)(%+?)$')
  if not owner then
    return {'foreign', 0, ''}
  end
  if owner ~= ARGV[1] then
    if ARGV[3] == '1' and plus == '' then
      -- Fails if the memory is full; the waiter then looks again when the lease ends.
      redis.pcall('APPEND', KEYS[1], '+')
    end
    return {'busy', redis.call('PTTL', KEYS[1]), owner}
  end
  if tonumber(token) >= tonumber(ARGV[5]) then
    -- The same claim again, because its first reply was lost.
    return {'granted', token, ''}
  end
  -- The same claim, which has learnt from another server that it must propose more.
  waited_for = plus
end
local newest = math.max(tonumber(floor), tonumber(counter or 0))
if tonumber(ARGV[5]) <= newest then
  return {'stale', string.format('%.0f', newest), ''}
end
redis.call('HSET', KEYS[2], ARGV[4], ARGV[5])
redis.call('SET', KEYS[1], ARGV[1] .. ':' .. ARGV[5] .. waited_for, 'PX', ARGV[2])
return {'granted', ARGV[5], ''}
