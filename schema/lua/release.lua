-- What cancel.lua and expire.lua share: giving a booking's tickets and its customer's allowance back, once.
-- It is placed between prelude.lua and the script's own text.

-- Moves the booking to `state` (CANCELLED or EXPIRED) and returns its new image, or 'U' where a key of the
-- inventory is missing and nothing was changed.
local function release(shard, keys, subject, booking, state, kind)
  if not load_inventory(keys, booking) then return 'U' end
  next_sequence(shard)
  move_stock(keys, booking.items, booking.state == HELD and 'held' or 'sold', -1)
  move_allowance(keys, booking.customer, booking.items, -1)
  unschedule[subject] = true
  booking.state = state
  local image = pack_image(shard, booking)
  write(keys.slot, string.sub(subject, 17), image)
  decide_booking(shard, kind, subject, image, keys, booking.items)
  return 'C' .. image
end
