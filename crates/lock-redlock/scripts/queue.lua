-- The queue of a lock at one server is a sorted set. A member is a waiter's owner id and the channel of its process,
-- or "?" if it cannot be told and looks often; the score is its ticket. That is when it came by its own clock, so that
-- all servers agree on who is next. Of that no more is believed than can be: a waiter did not come after it was heard,
-- and not long before. Where servers believe different things, the median of them is its ticket at all servers once it
-- asks again.
--
-- Before all others stands "~" and the member for whom the key is reserved, with the negative of when that ends. A
-- reservation only keeps votes from others. It is no vote, and goes to whoever comes to stand before.

-- For so many microseconds the key is reserved for the waiter whose turn it is.
local RESERVATION = 500000

-- So many microseconds before it is heard a waiter may have come.
local ON_THE_WAY = 1000000

-- Returns the server's time in microseconds.
local function clock()
  local time = redis.call('TIME')
  return tonumber(time[1]) * 1000000 + tonumber(time[2])
end

-- Returns the owner id for which the key is reserved, and for how many ms still. Takes away what is over, and the waiter
-- who did not come, unless that is who asks.
local function reservation(queue, now, asks)
  -- A user who may not do this or that can still acquire and release; waiters then look when a lease would have ended.
  local first = redis.pcall('ZRANGE', queue, 0, 0, 'WITHSCORES')
  local member = string.match(first[1] or '', '^~(.*)')
  local left = member and -tonumber(first[2]) - now
  -- A clock that was set back would make it last.
  if member and (left <= 0 or left > RESERVATION) then
    redis.pcall('ZREM', queue, first[1], member ~= asks and member or first[1])
    return nil
  end
  return member and string.sub(member, 1, 32), left and math.ceil(left / 1000)
end

-- Reserves a free key for the first waiter who may be alive, and tells it, unless it is the one who asks; returns its
-- owner id and for how many ms, if there is one.
local function hand_on(lock, queue, now, asks)
  local reserved, left = reservation(queue, now, asks)
  while true do
    local first = redis.pcall('ZRANGE', queue, reserved and 1 or 0, reserved and 1 or 0)[1]
    local owner = first and string.sub(first, 1, 32)
    if not owner or owner == reserved then
      return reserved, left
    end
    local channel = string.sub(first, 33)
    local told = (first == asks or channel == '?') and 1 or redis.pcall('PUBLISH', channel, lock)
    if type(told) ~= 'number' then
      return reserved, left
    end
    if told > 0 then
      if reserved then
        redis.pcall('ZREM', queue, redis.pcall('ZRANGE', queue, 0, 0)[1])
      end
      -- Fails if the memory is full; the waiter comes all the same.
      redis.pcall('ZADD', queue, string.format('-%.0f', now + RESERVATION), '~' .. first)
      return owner, RESERVATION / 1000
    end
    -- Where nobody listens, a waiter is gone.
    if type(redis.pcall('ZREM', queue, first)) ~= 'number' then
      return reserved, left
    end
  end
end

-- Puts a waiter in the queue, or moves it to where it belongs; returns its ticket. One that comes has told its clock.
local function stand(queue, member, ticket, ttl, now, comes)
  if comes then
    local came = math.max(now - ON_THE_WAY, math.min(now, tonumber(ticket)))
    ticket = redis.call('ZSCORE', queue, member) or came
  end
  ticket = string.format('%.0f', ticket)
  redis.call('ZADD', queue, ticket, member)
  -- Who waits asks once per TTL.
  local patience = 2 * tonumber(ttl) + 2 * RESERVATION / 1000
  if redis.call('PTTL', queue) < patience then
    redis.call('PEXPIRE', queue, patience)
  end
  return ticket
end
