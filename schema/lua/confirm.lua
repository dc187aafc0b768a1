-- Confirms holds: a batch of requests for one shard, in order, in one atomic step.
--
-- A live hold is confirmed whatever the event's status and window: its tickets are reserved. One that is past its
-- expiry must pass the checks of a new booking; where its tickets were not yet returned, they count as its own.
--
-- KEYS[1..4], ARGV[1..3]  see prelude.lua
-- KEYS[5..], ARGV[4..]    see inventory.lua; of each request the script's own part is the payment reference
--
-- Returns one string a request, its first byte the outcome, an image after C, P, X and E:
-- C confirmed, P was confirmed already, X cancelled, E expired and not to be had again, M no such booking,
-- O outbox full, U an inventory key is missing or the booking cannot be read. Only C writes.
-- Errors: UNVERIFIED, WRITEFAILED.

local shard = open_shard()
if not shard then return unverified() end

local function confirm(event_at, slot_at, request)
  local booking, refusal = booking_of(event_at, slot_at, request)
  if not booking then return refusal end
  if booking.state == CONFIRMED then return 'P' .. booking.image end
  if booking.state == CANCELLED then return 'X' .. booking.image end
  local event = load_inventory(event_at, booking)
  if not event then return 'U' end
  if booking.state == EXPIRED or shard.now >= booking.expires then
    refusal = check_take(shard, event, booking.customer, booking.taken, booking.state == HELD)
    if refusal == 'U' then return 'U' end
    if refusal then return 'E' .. booking.image end
  end
  if shard.outbox_full then return 'O' end

  next_sequence(shard)
  if booking.state == HELD then
    move_stock(event, booking.taken, 'held', -1)
  else
    move_allowance(event, booking.customer, booking.taken, 1)
  end
  move_stock(event, booking.taken, 'sold', 1)
  local subject = subject_of(request)
  unschedule[subject] = true
  booking.state = CONFIRMED
  booking.payment = string.sub(request, REST_AT)
  local image = repack_image(shard, booking)
  write_image(event, slot_at, request, image)
  decide_booking(shard, CONFIRMED_KIND, subject, image, event, booking.taken)
  return 'C' .. image
end

return decide_batch(shard, confirm)
