-- What cancel.lua and expire.lua share: giving a booking's tickets and its customer's allowance back, once.
-- It is placed between inventory.lua and the script's own text.

-- Moves the booking to `state` (CANCELLED or EXPIRED) and returns its new image, or 'U' where a key of the
-- inventory is missing and nothing was changed.
local function release(shard, event_at, slot_at, request, booking, state, kind)
  local event = load_inventory(event_at, booking)
  if not event then return 'U' end
  next_sequence(shard)
  move_stock(event, booking.taken, booking.state == HELD and 'held' or 'sold', -1)
  move_allowance(event, booking.customer, booking.taken, -1)
  local subject = subject_of(request)
  unschedule[subject] = true
  booking.state = state
  local image = repack_image(shard, booking)
  write_image(event, slot_at, request, image)
  decide_booking(shard, kind, subject, image, event, booking.taken)
  return 'C' .. image
end
