-- Reads a booking, where the shard is verified: what an unverified Redis holds may be older than what was acknowledged.
-- Writes nothing.
--
-- KEYS[1] shard   KEYS[2] certificate   KEYS[3] slot hash
-- ARGV[1] booking id
--
-- Returns the booking's image, or false where there is no such booking.
-- Errors: UNVERIFIED.

local epoch = redis.call('HGET', KEYS[1], 'epoch')
if not epoch or not is_certified(KEYS[2], epoch) then return unverified() end
return redis.call('HGET', KEYS[3], ARGV[1])
