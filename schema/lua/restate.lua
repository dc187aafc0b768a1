-- Says bookings once more, as they are: a batch of requests for one shard, in one atomic step. Nothing about a booking
-- changes but its position, and its whole image goes into the log again, so that a PostgreSQL that lost a decision
-- about it gets it by the normal way.
--
-- KEYS[1..4], ARGV[1..3]  see prelude.lua
-- KEYS[5 + 3i]  event hash      KEYS[6 + 3i]  slot hash      KEYS[7 + 3i]  customers hash      (i = request, from 0)
-- ARGV[4 + i]   event id .. booking id (32 bytes)
--
-- Returns one string a request, its first byte the outcome, an image after C:
-- C restated, M no such booking, O outbox full, U an inventory key is missing. Only C writes.
-- Errors: UNVERIFIED, WRITEFAILED.

local shard = open_shard()
if not shard then return unverified() end

local function restate(keys, subject)
  local booking_id = string.sub(subject, 17)
  local image = read_slot(keys, booking_id)
  if not image then return 'M' end
  local booking = parse_image(image)
  if not load_inventory(keys, booking) then return 'U' end
  if shard.outbox_full then return 'O' end

  next_sequence(shard)
  image = pack_image(shard, booking)
  write(keys.slot, booking_id, image)
  decide_booking(shard, 'restated', subject, image, keys, booking.items)
  return 'C' .. image
end

return decide_batch(shard, 1, restate)
