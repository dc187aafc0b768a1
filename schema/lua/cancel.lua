-- Cancels bookings, held or confirmed: a batch of requests for one shard, in order, in one atomic step.
--
-- KEYS[1..4], ARGV[1..3]  see prelude.lua
-- KEYS[5..], ARGV[4..]    see inventory.lua
--
-- Returns one string a request, its first byte the outcome, an image after C and P:
-- C cancelled, P was cancelled or expired already, M no such booking, O outbox full, U an inventory key is missing or the
-- booking cannot be read. Only C writes.
-- Errors: UNVERIFIED, WRITEFAILED.

local shard = open_shard()
if not shard then return unverified() end

local function cancel(event_at, slot_at, request)
  local booking, refusal = booking_of(event_at, slot_at, request)
  if not booking then return refusal end
  if booking.state == CANCELLED or booking.state == EXPIRED then return 'P' .. booking.image end
  if shard.outbox_full then return 'O' end
  return release(shard, event_at, slot_at, request, booking, CANCELLED, CANCELLED_KIND)
end

return decide_batch(shard, cancel)
