-- How an event's hash is read and what its keys say, for the scripts that decide about its bookings and for the one that only
-- looks at it.

-- What the fields of a ticket type are called in the event's hash. Each name is joined once a call: writing a number costs
-- more than what is done with the field.
local TYPE_FIELDS = {}
local function type_fields(ordinal)
  local fields = TYPE_FIELDS[ordinal]
  if not fields then
    fields = { cap = 'cap' .. ordinal, held = 'held' .. ordinal, sold = 'sold' .. ordinal, limit = 'limit' .. ordinal }
    TYPE_FIELDS[ordinal] = fields
  end
  return fields
end

-- Redis has '' for a limit that is none, and for a time that is none.
local function optional(text) return text ~= '' and tonumber(text) or nil end

-- `event` has the status and the bounds of its sale, `now` is in milliseconds.
local function on_sale(event, now)
  return event.status == 'on_sale' and (not event.open or now >= event.open) and (not event.close or now < event.close)
end

-- The number of a slot, which is the field of the customers hash that says whether the slot was ever written. It begins in the
-- slot's key where the key of the customers hash ends (`schema/src/keys.rs`); looking for it would take longer than asking Redis.
local function slot_number(event_at, at) return string.sub(KEYS[at], #KEYS[event_at + 1] + 1) end
