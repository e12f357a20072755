-- Appends events to a user's sequence: the rule of records.merge, atomic inside Redis.
-- KEYS[1] the sequence; ARGV: window, time to live in ms (0: none), whether to write even what changes nothing (1: for
-- replicas that are waited for), packed records
-- Returns how many were accepted, were duplicates, lay outside the window.
local SIZE = 28
local window, ttl, always, arriving = tonumber(ARGV[1]), tonumber(ARGV[2]), ARGV[3] == '1', ARGV[4]
local kept = redis.call('GET', KEYS[1]) or ''
if #kept % SIZE ~= 0 then
  return redis.error_reply('ERR not a sequence of records')
end

local records, times, present = {}, {}, {}
local first, last = 1, 0
for at = math.max(1, #kept - window * SIZE + 1), #kept, SIZE do
  last = last + 1
  records[last] = string.sub(kept, at, at + SIZE - 1)
  times[last] = struct.unpack('<i8', kept, at + 16)
  present[string.sub(kept, at, at + 7)] = true
end

local accepted, duplicates, outside = 0, 0, 0
for at = 1, #arriving, SIZE do
  local id = string.sub(arriving, at, at + 7)
  local time = struct.unpack('<i8', arriving, at + 16)
  if present[id] then
    duplicates = duplicates + 1
  elseif last - first + 1 == window and time <= times[first] then
    outside = outside + 1
  else
    local place = last + 1
    while place > first and times[place - 1] > time do
      records[place], times[place] = records[place - 1], times[place - 1]
      place = place - 1
    end
    records[place], times[place] = string.sub(arriving, at, at + SIZE - 1), time
    present[id] = true
    last = last + 1
    if last - first + 1 > window then
      present[string.sub(records[first], 1, 8)] = nil
      first = first + 1
    end
    accepted = accepted + 1
  end
end

if accepted > 0 then
  local value = table.concat(records, '', first, last)
  if ttl > 0 then
    redis.call('SET', KEYS[1], value, 'PX', ttl)
  else
    redis.call('SET', KEYS[1], value)
  end
elseif always and #kept > 0 then
  redis.call('SET', KEYS[1], kept, 'KEEPTTL')
end
return {accepted, duplicates, outside}
