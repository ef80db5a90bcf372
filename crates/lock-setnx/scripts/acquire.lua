-- Holds the key for one claim if it is free or reserved for the claim; else gives the claim a place in the queue, if it
-- waits.
--
-- KEYS[1] the lock: "<owner id>:<token>", and "+" if somebody waits; or "<owner id>~" if it is reserved for a waiter;
--         with slots, "@<epoch>" stands behind the token, and behind that the label of a copy, see put_copies.lua
-- KEYS[2] the fence counter of the lock's slot, and behind it ";<id>@<until when, in ms>" for each claim that was undone
--         lately, see undo.lua, and, with the id "q", as long as there may be queues
-- KEYS[3] the queue; see queue.lua
-- KEYS[4] with slots, the marker of the lock's slot
-- ARGV[1] owner id   ARGV[2] TTL in ms
-- ARGV[3] what stands behind the owner id in the queue: "?" if the claim cannot be told, "" if it does not wait
-- ARGV[4] what stands there if it can be told
-- ARGV[5] with slots, what the marker must be: "open <epoch>"
-- the last, ARGV[5] or ARGV[6]: the server's time in microseconds when the claimant's connection was dialed; "" if the
--         server may have been replaced since
--
-- Returns {1, token}; {0, ms until the holder's lease ends}; {3, the same} if the claim is in the queue; {2, 0} if there
-- is no larger token; {4, marker or ""} if that is another. Nobody waits for the answer to a copy that is refused.
local held = redis.call('GET', KEYS[1])
local own = held and string.sub(held, 1, 32) == ARGV[1]
if own and string.find(held, ':', 33, true) then
  -- The same claim again, because its first reply was lost.
  return {1, string.match(held, '%d+', 34)}
end
local epoch = ''
if KEYS[4] then
  local marker = redis.call('GET', KEYS[4])
  if marker ~= ARGV[5] then
    return {4, marker or ''}
  end
  epoch = '@' .. string.sub(marker, 6)
end
if held and not own and ARGV[3] == '' then
  return {0, redis.call('PTTL', KEYS[1])}
end
local floor = tonumber(ARGV[#ARGV])
if not held and floor then
  local token = redis.pcall('INCR', KEYS[2])
  -- A counter that is a number alone, and larger than the time of dialing, was in use since, and there is no queue. From
  -- 2^53 on numbers are not exact, and tokens would repeat.
  if type(token) == 'number' and token > floor and token < 9007199254740992 then
    token = string.format('%.0f', token)
    redis.call('SET', KEYS[1], ARGV[1] .. ':' .. token .. epoch, 'PX', ARGV[2])
    return {1, token}
  end
end
-- include queue.lua
local fence = redis.call('GET', KEYS[2])
if fence and string.find(fence, ARGV[1], 1, true) then
  return {0, 0}
end
local now, called, before = clock(), ARGV[1] .. ARGV[3], ARGV[1] .. (ARGV[3] == '?' and ARGV[4] or '?')
local rest, waited_for = entries(fence or '', now), ''

local function stand()
  local patience = math.max(3 * tonumber(ARGV[2]), 4 * RESERVATION)
  if not redis.call('ZSCORE', KEYS[3], called) then
    local behind = redis.call('ZREVRANGE', KEYS[3], 0, 0, 'WITHSCORES')[2] or 0
    redis.call('ZADD', KEYS[3], behind + 1, called)
    redis.call('ZREM', KEYS[3], before)
  end
  if redis.call('PTTL', KEYS[3]) < patience then
    redis.call('PEXPIRE', KEYS[3], 2 * patience)
  end
  if not string.find(held, '[+~]', -1) then
    redis.pcall('APPEND', KEYS[1], '+')
  end
  local till = tonumber(string.match(rest, ';q@(%d+)') or 0)
  if till * 1000 < now + patience * 1000 then
    rest = string.gsub(rest, ';q@%d+', '') .. ';q@' .. string.format('%.0f', now / 1000 + 2 * patience)
    redis.call('SET', KEYS[2], string.match(fence or '0', '^%d+') .. rest)
  end
end

local function refuse()
  -- To stand fails if the memory is full, or the user has no right to queues; then the waiter looks again.
  local stands = ARGV[3] ~= '' and pcall(stand)
  return {stands and 3 or 0, redis.call('PTTL', KEYS[1])}
end

if held and not own then
  return refuse()
end
if string.find(rest, ';q@', 1, true) then
  local first = not own and redis.pcall('ZRANGE', KEYS[3], 0, 0)[1]
  if first and first ~= called and first ~= before then
    -- A lease ended, or a reservation. Who is first in the queue is next.
    if hand_on(KEYS[1], KEYS[3]) then
      held = '~'
      return refuse()
    elseif ARGV[3] == '' and redis.call('EXISTS', KEYS[3]) == 1 then
      return {0, RESERVATION}
    end
  end
  if ARGV[3] ~= '' and (own or first) then
    redis.pcall('ZREM', KEYS[3], called, before)
  end
  waited_for = redis.pcall('EXISTS', KEYS[3]) == 1 and '+' or ''
end
-- The clock is a floor, so that tokens go on growing after a restart that lost the counter or set it back.
local last = math.max(tonumber(string.match(fence or '0', '^%d+')), floor or 0, now)
if last >= 9007199254740991 then
  return {2, 0}
end
local token = string.format('%.0f', last + 1)
redis.call('SET', KEYS[2], token .. rest)
redis.call('SET', KEYS[1], ARGV[1] .. ':' .. token .. epoch .. waited_for, 'PX', ARGV[2])
return {1, token}
