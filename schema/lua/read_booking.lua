-- Reads a booking, where the shard is verified: what an unverified Redis holds may be older than what was acknowledged.
-- Writes nothing.
--
-- KEYS[1] shard   KEYS[2] certificate   KEYS[3] slot hash   KEYS[4] customers hash
-- ARGV[1] booking id
--
-- Returns the booking's image, or false where there is no such booking.
-- Errors: UNVERIFIED, also where the slot is lost. That closes the shard with the next call that would change it.

local epoch = redis.call('HGET', KEYS[1], 'epoch')
if not epoch or not is_certified(KEYS[2], epoch) then return unverified() end
local found = redis.call('HMGET', KEYS[3], ARGV[1], '')
if not found[1] and not found[2] and redis.call('HEXISTS', KEYS[4], string.match(KEYS[3], '%d+$')) == 1 then
  return unverified()
end
return found[1]
