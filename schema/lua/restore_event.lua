-- Restoring, second: an event with its counters, and its customers' counters, empty so far.
--
-- KEYS[1] shard   KEYS[2] certificate   KEYS[3] event hash   KEYS[4] customers hash
-- ARGV[1] the epoch being recovered   ARGV[2] identity of the Redis in which that began (run_id:master_replid)
-- ARGV[3..] field, value pairs of the event hash, all of them
--
-- Returns 1.
-- Errors: STALEEPOCH where another recovery took the shard over, REDISCHANGED where this is another Redis.

local stale = refuse_stale(ARGV[1], ARGV[2])
if stale then return stale end
redis.call('UNLINK', KEYS[3], KEYS[4])
redis.call('HSET', KEYS[3], unpack(ARGV, 3))
redis.call('HSET', KEYS[4], '', '0')
return 1
