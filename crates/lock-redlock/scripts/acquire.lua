-- Gives this server's vote to a claim, if nobody has it, no other is next and no newer token was ever given here. A
-- claim that waits has a place in the queue if it is refused.
--
-- KEYS[1] the lock: "<owner id>:<token>", followed by "+" if somebody waits for its release; with slots, what is in
--         value.rs
-- KEYS[2] what this server remembers; see survey.lua
-- KEYS[3] the queue; see queue.lua
-- ARGV[1] owner id   ARGV[2] TTL in ms
-- ARGV[3] if it is refused: "come" into the queue, "wait" on there, or "go"; or "held" if the claim has a majority:
--         nobody who is next can have one before it, nor take a copy over that is here
-- ARGV[4] the field of the lock's fence counter   ARGV[5] the token that the claim proposes
-- With slots, else nothing or "":
-- ARGV[6] the epoch in which the slot must be open   ARGV[7] the slot's register; see prepare.lua
-- Of a claim that may stand in the queue:
-- ARGV[8] what stands there behind its owner id   ARGV[9] its ticket, or the time at which it comes in microseconds
--
-- Returns {"granted", token, ""}; {"busy", ms until the holder's lease ends, owner id}; {"next", the same of one for
-- whom it is reserved}, both with " <ticket>" behind the owner id if the claim stands in the queue; {"stale", the newest
-- token, ""}; {"forgot", 0, mark or "" before survey.lua set one}; {"closed", 0, ""} if the slot is not open here; or
-- {"foreign", 0, ""} if another program keeps something there.
local epoch, register = ARGV[6], ARGV[7]
if epoch == '' then
  epoch = nil
end
local floor, forgot, counter, accepted, learned
if epoch then
  floor, forgot, counter, accepted, learned = unpack(redis.call('HMGET', KEYS[2], 'floor', 'forgot', ARGV[4],
    register .. ' accepted', register .. ' learned'))
else
  floor, forgot, counter = unpack(redis.call('HMGET', KEYS[2], 'floor', 'forgot', ARGV[4]))
end
if forgot or not floor then
  -- This server could vote a second time, and for a token that is older than one it has voted for.
  return {'forgot', 0, forgot or ''}
end
if epoch then
  -- What was accepted may never be agreed on, and what was learned may have been overtaken.
  local open = 'open ' .. epoch
  for _, proposal in ipairs({accepted or '', learned or ''}) do
    if string.match(proposal, '^%S+ (.*)$') ~= open then
      return {'closed', 0, ''}
    end
  end
end
local held = redis.call('GET', KEYS[1])
local own, other, waited_for = false, nil, ''
if held then
  local owner, token, label, plus = string.match(held, '^(%x+):(%d+)([^+]*)(%+?)$')
  if not owner or (epoch == nil) ~= (label == '') then
    return {'foreign', 0, ''}
  end
  own, waited_for = owner == ARGV[1], plus
  if own and tonumber(token) >= tonumber(ARGV[5]) then
    -- The same claim again, because its first reply was lost.
    return {'granted', token, ''}
  end
  -- A copy of a hold can be taken over in one epoch only.
  local copied_for = string.match(label, '=(%d+):')
  local is_void = copied_for and (copied_for ~= epoch or ARGV[3] == 'held')
  other = not own and not is_void and owner
end
-- Its own is the same claim, which has learnt from another server that it must propose more.
local is_waited_for = not own and redis.call('EXISTS', KEYS[3]) == 1
if other or is_waited_for and ARGV[3] ~= 'held' then
  -- include queue.lua
  local now, comes, member, stands = clock(), ARGV[3] == 'come', ARGV[8] and ARGV[1] .. ARGV[8], ''
  if comes or ARGV[3] == 'wait' then
    -- Fails if the memory is full, or the user has no right to queues; the waiter then looks again.
    local stood, ticket = pcall(stand, KEYS[3], member, ARGV[9], ARGV[2], now, comes)
    stands = stood and ' ' .. ticket or ''
  elseif member then
    redis.pcall('ZREM', KEYS[3], member, '~' .. member)
  end
  if other then
    if stands ~= '' and waited_for == '' then
      redis.pcall('APPEND', KEYS[1], '+')
    end
    return {'busy', redis.call('PTTL', KEYS[1]), other .. stands}
  end
  -- Who came first is next, also where a lease ended or a reservation.
  local reserved, left = hand_on(KEYS[1], KEYS[3], now, member)
  if reserved and reserved ~= ARGV[1] then
    return {'next', left, reserved .. stands}
  end
end
local newest = math.max(tonumber(floor), tonumber(counter or 0))
if tonumber(ARGV[5]) <= newest then
  return {'stale', string.format('%.0f', newest), ''}
end
if is_waited_for then
  local member = ARGV[1] .. (ARGV[8] or '')
  redis.pcall('ZREM', KEYS[3], member, '~' .. member)
  waited_for = redis.call('EXISTS', KEYS[3]) == 1 and '+' or ''
end
local token = ARGV[5]
if epoch then
  token = token .. '@' .. epoch
end
redis.call('HSET', KEYS[2], ARGV[4], ARGV[5])
redis.call('SET', KEYS[1], ARGV[1] .. ':' .. token .. waited_for, 'PX', ARGV[2])
return {'granted', ARGV[5], ''}
