-- Says bookings once more, as they are: a batch of requests for one shard, in one atomic step. Nothing about a booking
-- changes but its position, and its whole image goes into the log again, so that a PostgreSQL that lost a decision
-- about it gets it by the normal way.
--
-- KEYS[1..4], ARGV[1..3]  see prelude.lua
-- KEYS[5..], ARGV[4..]    see inventory.lua
--
-- Returns one string a request, its first byte the outcome, an image after C:
-- C restated, M no such booking, O outbox full, U an inventory key is missing or the booking cannot be read. Only C writes.
-- Errors: UNVERIFIED, WRITEFAILED.

local shard = open_shard()
if not shard then return unverified() end

local function restate(event_at, slot_at, request)
  local booking, refusal = booking_of(event_at, slot_at, request)
  if not booking then return refusal end
  local event = load_inventory(event_at, booking)
  if not event then return 'U' end
  if shard.outbox_full then return 'O' end

  next_sequence(shard)
  local image = repack_image(shard, booking)
  write_image(event, slot_at, request, image)
  decide_booking(shard, RESTATED_KIND, subject_of(request), image, event, booking.taken)
  return 'C' .. image
end

return decide_batch(shard, restate)
