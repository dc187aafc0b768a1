-- Expires holds that are due: a batch for one shard, in one atomic step. The caller found the candidates in the
-- expiry set; whether each is due is decided here, by the shard's clock.
--
-- KEYS[1..4], ARGV[1..3]  see prelude.lua
-- KEYS[5..], ARGV[4..]    see inventory.lua; a request is a candidate
--
-- How many slots an event has its hash says. Where that is missing the caller cannot say in which slot a candidate lies, and
-- names any: the loss of the hash is found all the same.
--
-- Returns one string a candidate, its first byte the outcome, an image after C and P:
-- C expired, P not due or no longer held (its entry in the expiry set is removed in the second case),
-- M no such booking, O outbox full, U an inventory key is missing or the booking cannot be read. Only C takes a position.
-- Errors: UNVERIFIED, WRITEFAILED.

local shard = open_shard()
if not shard then return unverified() end

local function expire(event_at, slot_at, request)
  local booking, refusal = booking_of(event_at, slot_at, request)
  if not booking then
    load_event(event_at, 0)
    return refusal
  end
  if booking.state ~= HELD then
    unschedule[subject_of(request)] = true
    return 'P' .. booking.image
  end
  if shard.now < booking.expires then return 'P' .. booking.image end
  if shard.outbox_full then return 'O' end
  return release(shard, event_at, slot_at, request, booking, EXPIRED, EXPIRED_KIND)
end

return decide_batch(shard, expire)
