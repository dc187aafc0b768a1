-- Reads a booking, where the shard is verified: what an unverified Redis holds may be older than what was acknowledged.
-- Writes nothing.
--
-- KEYS[1] shard   KEYS[2] certificate   KEYS[3] slot hash
-- ARGV[1] booking id
--
-- Returns the booking's image, or false where there is no such booking.
-- Errors: UNVERIFIED.

local epoch = redis.call('HGET', KEYS[1], 'epoch')
if not epoch or redis.call('GET', KEYS[2]) ~= redis_identity() .. ':' .. epoch then
  return redis.error_reply('UNVERIFIED the shard has no certificate for this Redis; recovery must check it first')
end
return redis.call('HGET', KEYS[3], ARGV[1])
