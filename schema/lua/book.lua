-- Books or holds tickets: a batch of requests for one shard, in order, in one atomic step.
--
-- KEYS[1..4], ARGV[1..3]  see prelude.lua
-- KEYS[5 + 3i]  event hash      KEYS[6 + 3i]  slot hash      KEYS[7 + 3i]  customers hash      (i = request, from 0)
-- ARGV[4 + 6i]  event id .. booking id (32 bytes)
-- ARGV[5 + 6i]  idempotency field: hash of caller, event and key (16 bytes)
-- ARGV[6 + 6i]  hold in milliseconds, 0 to confirm at once
-- ARGV[7 + 6i]  items: n times (ordinal u8, quantity u16)
-- ARGV[8 + 6i]  customer hash (16 bytes) .. fingerprint (16 bytes)
-- ARGV[9 + 6i]  the image's tail, opaque here
--
-- Returns one string a request, its first byte the outcome; an image after B, a booking id (16 bytes) and an image
-- after R:
-- B booked, R replayed, F key reused with another body, N not on sale, L limit, S sold out, O outbox full,
-- U an inventory key is missing. Only B writes.
-- Errors: UNVERIFIED, WRITEFAILED.

local shard = open_shard()
if not shard then return unverified() end

local function book(keys, subject, idempotency, hold_ms, items, identity, tail)
  hold_ms = tonumber(hold_ms)
  local known = read_slot(keys, idempotency)
  if known then
    local image = read(keys.slot, known)
    if not image then
      lost = keys.slot
      return 'U'
    end
    if string.sub(image, 49, 64) ~= string.sub(identity, 17) then return 'F' end
    return 'R' .. known .. image
  end
  local customer = string.sub(identity, 1, CUSTOMER_FIELD)
  local refusal = check_take(shard, keys, customer, items)
  if refusal then return refusal end
  if shard.outbox_full then return 'O' end

  local state = hold_ms > 0 and HELD or CONFIRMED
  next_sequence(shard)
  local image = pack_image(shard, {
    state = state, first = state, count = #items / 3, created = shard.now,
    expires = hold_ms > 0 and shard.now + hold_ms or 0,
    identity = identity, items = items, payment = '', tail = tail,
  })
  local booking_id = string.sub(subject, 17)
  mark_slot(keys)
  write(keys.slot, idempotency, booking_id)
  write(keys.slot, booking_id, image)
  move_stock(keys, items, hold_ms > 0 and 'held' or 'sold', 1)
  move_allowance(keys, customer, items, 1)
  if hold_ms > 0 then schedule[subject] = shard.now + hold_ms end
  decide_booking(shard, hold_ms > 0 and 'held' or 'booked', subject, image, keys, items)
  return 'B' .. image
end

return decide_batch(shard, 6, book)
