-- Restoring, third: a page of an event's bookings, with their idempotency records, expiries and their customers'
-- allowances. A page must not be restored twice, since allowances are added up.
--
-- KEYS[1] shard   KEYS[2] certificate   KEYS[3] expiry   KEYS[4] customers hash   KEYS[5..] slot hashes
-- ARGV[1] the epoch being recovered     ARGV[2] how many allowances follow
-- ARGV[3..] for each allowance: field of the customers hash, tickets to add;
--   then for each booking: index of its slot among KEYS[5..] from 0, idempotency field, event id .. booking id
--   (32 bytes), image, expiry of its hold in milliseconds or '' where it is not held
--
-- Returns the number of bookings restored.
-- Errors: STALEEPOCH where another recovery took the shard over.

local stale = refuse_stale(ARGV[1])
if stale then return stale end
local at = 3
for _ = 1, tonumber(ARGV[2]) do
  redis.call('HINCRBY', KEYS[4], ARGV[at], ARGV[at + 1])
  at = at + 2
end
local restored = 0
while at <= #ARGV do
  local slot, subject = KEYS[5 + ARGV[at]], ARGV[at + 2]
  local booking_id = string.sub(subject, 17)
  redis.call('HSET', slot, ARGV[at + 1], booking_id, booking_id, ARGV[at + 3])
  if ARGV[at + 4] ~= '' then redis.call('ZADD', KEYS[3], ARGV[at + 4], subject) end
  restored = restored + 1
  at = at + 5
end
return restored
