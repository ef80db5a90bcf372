-- Gives this server's vote to a claim, if nobody has it and no newer token was ever given here.
--
-- KEYS[1] the lock: "<owner id>:<token>", followed by "+" if somebody waits for its release
-- KEYS[2] what this server remembers: a hash of fence counters and of what look.lua and teach.lua keep there
-- KEYS[3] the mark of a server that remembers nothing
-- ARGV[1] owner id   ARGV[2] TTL in ms   ARGV[3] "1" if a refused claimant is going to wait
-- ARGV[4] the field of the lock's fence counter   ARGV[5] the token that the claim proposes
--
-- Returns {"granted", token, ""}, {"busy", ms until the holder's lease ends, owner id}, {"stale", the newest token, ""}
-- or {"forgot", 0, mark}.
local memory = redis.call('HMGET', KEYS[2], 'ttl', 'floor', ARGV[4])
if not memory[1] then
  -- Without its counters this server could vote for a token that is older than one it has voted for.
  redis.call('SET', KEYS[3], ARGV[1], 'NX')
  return {'forgot', 0, redis.call('GET', KEYS[3])}
end
local held = redis.call('GET', KEYS[1])
local waited_for = ''
if held then
  local owner, token, plus = string.match(held, '^(%x+):(%d+)(%+?)$')
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
local newest = math.max(tonumber(memory[2]), tonumber(memory[3] or 0))
if tonumber(ARGV[5]) <= newest then
  return {'stale', string.format('%.0f', newest), ''}
end
redis.call('HSET', KEYS[2], ARGV[4], ARGV[5])
redis.call('SET', KEYS[1], ARGV[1] .. ':' .. ARGV[5] .. waited_for, 'PX', ARGV[2])
return {'granted', ARGV[5], ''}
