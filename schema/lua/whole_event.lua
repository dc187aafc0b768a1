-- What the scripts share that decide about an event as a whole: its hash as a table, and the fields that change.
-- It is placed between prelude.lua and the script's own text.

-- The hash at a key as a table; empty where there is none.
local function read_whole(key)
  local flat = redis.call('HGETALL', key)
  local event = {}
  for i = 1, #flat, 2 do event[flat[i]] = flat[i + 1] end
  return event
end

-- Fields of the event's hash by name, written by `write_changed`.
local changed = {}

local function write_changed()
  local set = { 'HSET', KEYS[5] }
  for field, value in pairs(changed) do
    local n = #set
    set[n + 1], set[n + 2] = field, value
  end
  redis.call(unpack(set))
end
