-- Tells what this server knows of one register or of all; see prepare.lua.
--
-- KEYS[1] what this server remembers; see survey.lua
-- ARGV[1] register, or "" for all
--
-- Returns {"yes", "", {register, promised, accepted, learned, ...}}, or {"forgot", mark or "", {}}. What was learned is
-- "=" if it is what was accepted.
local floor, forgot = unpack(redis.call('HMGET', KEYS[1], 'floor', 'forgot'))
if forgot or not floor then
  return {'forgot', forgot or '', {}}
end
local registers = {}
if ARGV[1] == '' then
  local fields = redis.call('HGETALL', KEYS[1])
  for i = 1, #fields, 2 do
    local register, what = string.match(fields[i], '^(%w+) (%w+)$')
    if register then
      registers[register] = registers[register] or {}
      registers[register][what] = fields[i + 1]
    end
  end
else
  local promised, accepted, learned = unpack(redis.call('HMGET', KEYS[1], ARGV[1] .. ' promised',
    ARGV[1] .. ' accepted', ARGV[1] .. ' learned'))
  if promised then
    registers[ARGV[1]] = {promised = promised, accepted = accepted or nil, learned = learned or nil}
  end
end
local told = {}
for register, of in pairs(registers) do
  local learned = of.learned or ''
  if learned ~= '' and learned == of.accepted then
    learned = '='
  end
  for _, text in ipairs({register, of.promised or '', of.accepted or '', learned}) do
    told[#told + 1] = text
  end
end
return {'yes', '', told}
