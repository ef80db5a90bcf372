-- Lists locks with what is kept under them, some at each call.
--
-- KEYS[1] what this server remembers; see survey.lua
-- ARGV[1] a pattern of names   ARGV[2] "name" if it is one name, "copies" if only copies of holds are wanted, or "all"
-- ARGV[3] where to go on, "0" at first
--
-- Returns {"yes", where to go on, or "0" at the end, {name, value, ...}}, or {"forgot", mark or "", {}}.
local floor, forgot = unpack(redis.call('HMGET', KEYS[1], 'floor', 'forgot'))
if forgot or not floor then
  return {'forgot', forgot or '', {}}
end
local next, names = '0', {ARGV[1]}
if ARGV[2] ~= 'name' then
  next, names = unpack(redis.call('SCAN', ARGV[3], 'MATCH', ARGV[1], 'COUNT', 1000))
end
local found = {}
for _, name in ipairs(names) do
  -- Queues have no colon there.
  local held = string.find(name, '}:', 1, true) and redis.call('GET', name)
  if held and (ARGV[2] ~= 'copies' or string.find(held, '=', 1, true)) then
    found[#found + 1] = name
    found[#found + 1] = held
  end
end
return {'yes', next, found}
