-- Frees the key if the claim has this server's vote or is next, and hands it on to the first who waits; takes the claim
-- out of the queue, unless it goes on waiting.
--
-- KEYS[1] the lock   KEYS[2] the queue; see queue.lua
-- ARGV[1] owner id
-- ARGV[2] what stands behind the owner id in the queue, if the claim may stand there
-- ARGV[3] the ticket with which it goes on waiting, if it does
-- ARGV[4] its TTL in ms   ARGV[5] the newest token that it has proposed: this may arrive after a vote for a newer one
--
-- Returns 1 if the key was freed, 0 if the claim did not have the vote, and 2 more if the key was handed on. Needs no
-- memory.
local held = redis.call('GET', KEYS[1])
local own = held and string.sub(held, 1, 32) == ARGV[1]
if own then
  if ARGV[3] and tonumber(string.match(held, '%d+', 34)) > tonumber(ARGV[5]) then
    return 0
  end
  redis.call('DEL', KEYS[1])
  if string.sub(held, -1) ~= '+' and not ARGV[3] then
    return 1
  end
end
-- include queue.lua
local now, member = clock(), ARGV[2] and ARGV[1] .. ARGV[2]
if ARGV[3] then
  local stands = pcall(stand, KEYS[2], member, ARGV[3], ARGV[4], now)
  if stands and held and not own and string.sub(held, -1) ~= '+' then
    redis.pcall('APPEND', KEYS[1], '+')
  end
elseif member then
  local untold = ARGV[1] .. '?'
  redis.pcall('ZREM', KEYS[2], member, '~' .. member, untold, '~' .. untold)
end
local freed = own and 1 or 0
return (own or not held) and hand_on(KEYS[1], KEYS[2], now, member) and freed + 2 or freed
