-- Books or holds tickets: a batch of requests for one shard, in order, in one atomic step.
--
-- KEYS[1..4], ARGV[1..3]  see prelude.lua
-- KEYS[5..], ARGV[4..]    see inventory.lua; of each request the script's own part is
--   hold in milliseconds, 0 to confirm at once (u64); how many items (u8)
--   what the image has behind its header, of which the script reads customer hash, fingerprint and items
--
-- Returns one string a request, its first byte the outcome; an image after B; after R the end of the booking's id
-- (10 bytes), the id's time (6) and an image:
-- B booked, R replayed, F key reused with another body, N not on sale, L limit, S sold out, O outbox full,
-- U an inventory key is missing, or what the key made cannot be read. Only B writes.
-- Errors: UNVERIFIED, WRITEFAILED.

local shard = open_shard()
if not shard then return unverified() end

local IMAGE_AT = REST_AT + 9 - CUSTOMER_AT -- add a place in an image, and it is the place in a request

local function replay(field, value, request)
  local made = string.sub(value, TIME + FINGERPRINT_AT, TIME + ITEMS_AT - 1)
  if made ~= string.sub(request, IMAGE_AT + FINGERPRINT_AT, IMAGE_AT + ITEMS_AT - 1) then
    -- Who is told that a booking's key was used with another body makes another key, and books again.
    return parse_image(string.sub(value, TIME + 1)) and 'F' or 'U'
  end
  return 'R' .. field .. value
end

local function book(event_at, slot_at, request)
  local field = field_of(request)
  local known = read_slot(event_at, slot_at, field)
  if known then return replay(field, known, request) end
  local hold_ms, count = struct.unpack('>I8B', request, REST_AT)
  local taken = parse_items(request, IMAGE_AT + ITEMS_AT, count)
  local event = load_event(event_at, taken[1])
  if not event then return 'U' end
  local customer_at = IMAGE_AT + CUSTOMER_AT
  local customer = string.sub(request, customer_at, customer_at + CUSTOMER_FIELD - 1)
  local refusal = check_take(shard, event, customer, taken)
  if refusal then return refusal end
  if shard.outbox_full then return 'O' end

  local is_hold = hold_ms > 0
  local state, expires = CONFIRMED, 0
  if is_hold then state, expires = HELD, shard.now + hold_ms end
  next_sequence(shard)
  local image = pack_image(shard, state, state, count, shard.now, expires, string.sub(request, customer_at))
  local subject = subject_of(request)
  write_image(event, slot_at, request, image)
  move_stock(event, taken, is_hold and 'held' or 'sold', 1)
  move_allowance(event, customer, taken, 1)
  if is_hold then schedule[subject] = expires end
  decide_booking(shard, is_hold and HELD_KIND or BOOKED_KIND, subject, image, event, taken)
  return 'B' .. image
end

return decide_batch(shard, book)
