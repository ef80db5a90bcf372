-- The queue of a lock is a sorted set, in the order in which its waiters came. A member is the waiter's owner id, "!" if
-- whoever listens to its channel does so at this server, else "?", and the channel of its process; without a channel it
-- cannot be told, and looks often.

-- For so many ms the key is reserved for the waiter whose turn it is.
local RESERVATION = 500

-- Reserves the key for the first waiter who may be alive, and tells it; returns whether there was one.
local function hand_on(lock, queue)
  while true do
    -- A user who may not do this or that can still release; waiters then look when the lease would have ended.
    local first = redis.pcall('ZRANGE', queue, 0, 0)[1]
    if not first then
      return false
    end
    local channel = string.sub(first, 34)
    local told = channel == '' or redis.pcall('PUBLISH', channel, lock)
    if type(told) == 'table' then
      return false
    end
    -- This needs no memory, and after it the rest is not refused for want of it.
    redis.call('ZREM', queue, first)
    -- Where nobody listens, a waiter is gone.
    if told ~= 0 or string.sub(first, 33, 33) == '?' then
      redis.call('SET', lock, string.sub(first, 1, 32) .. '~', 'PX', RESERVATION)
      return true
    end
  end
end

-- Returns the server's time in microseconds.
local function clock()
  local time = redis.call('TIME')
  return tonumber(time[1]) * 1000000 + tonumber(time[2])
end

-- Returns what stands behind a fence counter, less what is over.
local function entries(fence, now)
  local kept = ''
  for id, till in string.gmatch(fence, ';(%w+)@(%d+)') do
    if tonumber(till) * 1000 > now then
      kept = kept .. ';' .. id .. '@' .. till
    end
  end
  return kept
end
