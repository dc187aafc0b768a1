-- What the scripts share that decide about an event as a whole: its hash as a table, and the fields that change.
-- It is placed between prelude.lua and the script's own text.

-- The hash at a key as a table; empty where there is none.
local function read_whole(key)
  local flat = redis.call('HGETALL', key)
  local event = {}
  for i = 1, #flat, 2 do event[flat[i]] = flat[i + 1] end
  return event
end

-- What must be in the hash, and how large its numbers may be: what the readers of the log count in 32 bits, and what any calendar
-- has of milliseconds. The first three lists are of the event, the others of each of its ticket types.
local COUNT, LONG = 4294967295, 8000000000000000
local TEXTS = { 'id', 'name', 'currency', 'status' }
local NUMBERS = { types = 255, slots = COUNT, hold = COUNT, starts = LONG, created = LONG, updated = LONG }
local NUMBERS_OR_NONE = { limit = COUNT, open = LONG, close = LONG }
local TYPE_TEXTS = { 'id', 'name' }
local TYPE_NUMBERS = { price = LONG, cap = COUNT, held = COUNT, sold = COUNT }
local TYPE_NUMBERS_OR_NONE = { limit = COUNT }

local function is_number(text, most) return text and string.find(text, '^%d+$') and tonumber(text) <= most end

local function has_fields(event, ordinal, texts, numbers, numbers_or_none)
  for _, field in ipairs(texts) do if not event[field .. ordinal] then return false end end
  for field, most in pairs(numbers) do if not is_number(event[field .. ordinal], most) then return false end end
  for field, most in pairs(numbers_or_none) do
    if event[field .. ordinal] ~= '' and not is_number(event[field .. ordinal], most) then return false end
  end
  return true
end

-- Whether an event's hash is what the readers of the log take for one (`schema/src/event.rs`), as far as its numbers tell. A hand may
-- have written anything. Nobody could read a frame with it, and what lies behind that in the outbox would wait for ever.
local function is_whole(event)
  if not has_fields(event, '', TEXTS, NUMBERS, NUMBERS_OR_NONE) then return false end
  for ordinal = 0, event.types - 1 do
    if not has_fields(event, ordinal, TYPE_TEXTS, TYPE_NUMBERS, TYPE_NUMBERS_OR_NONE) then return false end
  end
  return true
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
