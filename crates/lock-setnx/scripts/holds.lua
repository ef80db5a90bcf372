-- Looks for locks that are held, some at a time.
--
-- KEYS[1] what is looked for: what their names begin with, and "*"
-- ARGV[1] where to go on, "0" at first
--
-- Returns where to go on, "0" at the end; and the name and value of each.
local found = redis.call('SCAN', ARGV[1], 'MATCH', KEYS[1], 'COUNT', 1000)
local holds = {found[1]}
for _, name in ipairs(found[2]) do
  local held = redis.pcall('GET', name)
  if type(held) == 'string' and string.sub(held, 33, 33) == ':' then
    holds[#holds + 1] = name
    holds[#holds + 1] = held
  end
end
return holds
