-- Looks at an event for a crowd that wants what was sold out: what is left, and whether anything was booked in the crowd's
-- slots since their fields were read last. Under one certificate fields are only ever added to a slot, so that as many
-- fields are the same fields. Writes nothing.
--
-- KEYS[1] shard   KEYS[2] certificate   KEYS[3] event hash   KEYS[4] customers hash   KEYS[5..] slots of the event
-- ARGV[1] ordinals of ticket types, a byte each
-- ARGV[2] of each slot, how many of its fields are known (u32 each)
--
-- Returns {certificate, tickets left of each ticket type, which slots something was added to, the fields of each of them}; a
-- slot is said by its place among the slots, from 0, and without fields where one call would read more than it should. Returns
-- nil where the event may not be sold just now, for whatever reason: book.lua says which, and closes a shard that has lost a key.
-- What only limits need is not read here.

local FIELDS_READ_MAX = 4096

local shard = redis.call('HMGET', KEYS[1], 'epoch', 'clock')
if not (shard[1] and shard[2] and is_certified(KEYS[2], shard[1])) then return false end
local time = redis.call('TIME')
local now = math.max(time[1] * 1000 + math.floor(time[2] / 1000), tonumber(shard[2]))

local fields = { 'status', 'open', 'close' }
for i = 1, #ARGV[1] do
  local of, n = type_fields(string.byte(ARGV[1], i)), #fields
  fields[n + 1], fields[n + 2], fields[n + 3] = of.cap, of.held, of.sold
end
local read = redis.call('HMGET', KEYS[3], unpack(fields))
for i = 1, #fields do if not read[i] then return false end end
local event = { status = read[1], open = optional(read[2]), close = optional(read[3]) }
if redis.call('HEXISTS', KEYS[4], '') == 0 or not on_sale(event, now) then return false end

local left = {}
for i = 1, #ARGV[1] do
  local cap, held, sold = unpack(read, 3 * i + 1, 3 * i + 3)
  left[i] = math.max(0, cap - held - sold)
end

local added_to, slots_read, fields_read = {}, {}, 0
for at = 5, #KEYS do
  local fields = redis.call('HLEN', KEYS[at])
  if fields == 0 and redis.call('HEXISTS', KEYS[4], slot_number(3, at)) == 1 then return false end
  if fields ~= struct.unpack('>I4', ARGV[2], 4 * (at - 5) + 1) then
    added_to[#added_to + 1] = at - 5
    local is_read = fields_read + fields <= FIELDS_READ_MAX
    if is_read then fields_read = fields_read + fields end
    slots_read[#added_to] = is_read and redis.call('HKEYS', KEYS[at]) or {}
  end
end
return { redis.call('GET', KEYS[2]), left, added_to, slots_read }
