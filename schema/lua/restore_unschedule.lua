-- Restoring one event, before its bookings: removes its holds from the shard's expiry queue, which other events share.
--
-- KEYS[1] shard   KEYS[2] certificate   KEYS[3] expiry
-- ARGV[1] the epoch being recovered   ARGV[2] identity of the Redis in which that began (run_id:master_replid)
-- ARGV[3..] event id .. booking id (32 bytes each)
--
-- Returns the number of holds removed.
-- Errors: STALEEPOCH where another recovery took the shard over, REDISCHANGED where this is another Redis.

local stale = refuse_stale(ARGV[1], ARGV[2])
if stale then return stale end
if #ARGV == 2 then return 0 end
return redis.call('ZREM', KEYS[3], unpack(ARGV, 3))
