-- Books or holds tickets: a batch of requests for one shard, in order, in one atomic step.
--
-- KEYS[1..4], ARGV[1..3]  see prelude.lua
-- KEYS[5..], ARGV[4..]    see inventory.lua; of each request the script's own part is
--   idempotency field: hash of caller, event and key (16 bytes)
--   customer hash (16 bytes) .. fingerprint (16 bytes)
--   hold in milliseconds, 0 to confirm at once (u64)
--   items: their length (u8), n times (ordinal u8, quantity u16)
--   the image's tail, opaque here: its length (u16), its bytes
--
-- Returns one string a request, its first byte the outcome; an image after B, a booking id (16 bytes) and an image
-- after R:
-- B booked, R replayed, F key reused with another body, N not on sale, L limit, S sold out, O outbox full,
-- U an inventory key is missing. Only B writes.
-- Errors: UNVERIFIED, WRITEFAILED.

local shard = open_shard()
if not shard then return unverified() end

local function replay(event_at, slot_at, booking_id, identity)
  local image = read_slot(event_at, slot_at, booking_id)
  if not image then
    lost = KEYS[slot_at]
    return 'U'
  end
  if string.sub(image, 49, 64) ~= string.sub(identity, 17) then return 'F' end
  return 'R' .. booking_id .. image
end

local function book(event_at, slot_at, subject, request)
  local idempotency, identity, hold_ms, items, tail = struct.unpack('>c16c32I8Bc0Hc0', request, REST_AT)
  local known = read_slot(event_at, slot_at, idempotency)
  if known then return replay(event_at, slot_at, known, identity) end
  local customer, taken = string.sub(identity, 1, CUSTOMER_FIELD), parse_items(items)
  local event = load_event(event_at, taken[1])
  if not event then return 'U' end
  local refusal = check_take(shard, event, customer, taken)
  if refusal then return refusal end
  if shard.outbox_full then return 'O' end

  local is_hold = hold_ms > 0
  local state, expires = CONFIRMED, 0
  if is_hold then state, expires = HELD, shard.now + hold_ms end
  next_sequence(shard)
  local image = pack_image(shard, state, state, shard.now, expires, identity, items, '', tail)
  local booking_id = string.sub(subject, 17)
  write_slot(event, slot_at, idempotency, booking_id)
  write_slot(event, slot_at, booking_id, image)
  move_stock(event, taken, is_hold and 'held' or 'sold', 1)
  move_allowance(event, customer, taken, 1)
  if is_hold then schedule[subject] = expires end
  decide_booking(shard, is_hold and HELD_KIND or BOOKED_KIND, subject, image, event, taken)
  return 'B' .. image
end

return decide_batch(shard, book)
