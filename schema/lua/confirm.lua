-- Confirms holds: a batch of requests for one shard, in order, in one atomic step.
--
-- A live hold is confirmed whatever the event's status and window: its tickets are reserved. One that is past its
-- expiry must pass the checks of a new booking; where its tickets were not yet returned, they count as its own.
--
-- KEYS[1..4], ARGV[1..3]  see prelude.lua
-- KEYS[5 + 3i]  event hash      KEYS[6 + 3i]  slot hash      KEYS[7 + 3i]  customers hash      (i = request, from 0)
-- ARGV[4 + 2i]  event id .. booking id (32 bytes)
-- ARGV[5 + 2i]  payment reference
--
-- Returns one string a request, its first byte the outcome, an image after C, P, X and E:
-- C confirmed, P was confirmed already, X cancelled, E expired and not to be had again, M no such booking,
-- O outbox full, U an inventory key is missing. Only C writes.
-- Errors: UNVERIFIED, WRITEFAILED.

local shard = open_shard()
if not shard then return unverified() end

local function confirm(keys, subject, payment)
  local booking_id = string.sub(subject, 17)
  local image = read_slot(keys, booking_id)
  if not image then return 'M' end
  local booking = parse_image(image)
  if booking.state == CONFIRMED then return 'P' .. image end
  if booking.state == CANCELLED then return 'X' .. image end
  if not load_inventory(keys, booking) then return 'U' end
  if booking.state == EXPIRED or shard.now >= booking.expires then
    local refusal = check_take(shard, keys, booking.customer, booking.items, booking.state == HELD)
    if refusal == 'U' then return 'U' end
    if refusal then return 'E' .. image end
  end
  if shard.outbox_full then return 'O' end

  next_sequence(shard)
  if booking.state == HELD then
    move_stock(keys, booking.items, 'held', -1)
  else
    move_allowance(keys, booking.customer, booking.items, 1)
  end
  move_stock(keys, booking.items, 'sold', 1)
  unschedule[subject] = true
  booking.state = CONFIRMED
  booking.payment = payment
  image = pack_image(shard, booking)
  write(keys.slot, booking_id, image)
  decide_booking(shard, 'confirmed', subject, image, keys, booking.items)
  return 'C' .. image
end

return decide_batch(shard, 2, confirm)
