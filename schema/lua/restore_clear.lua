-- Restoring, first: removes what Redis holds of a shard that recovery found to be wrong. It also takes the shard's
-- sequence back to 0, so that a restoration that is interrupted is seen as a loss by the next recovery, never as whole.
--
-- KEYS[1] shard   KEYS[2] certificate   KEYS[3..] the keys to be removed
-- ARGV[1] the epoch being recovered   ARGV[2] identity of the Redis in which that began (run_id:master_replid)
--
-- Returns the number of keys removed.
-- Errors: STALEEPOCH where another recovery took the shard over, REDISCHANGED where this is another Redis.

local stale = refuse_stale(ARGV[1], ARGV[2])
if stale then return stale end
redis.call('HSET', KEYS[1], 'seq', 0, 'last_epoch', 0)
local removed = 0
for i = 3, #KEYS do removed = removed + redis.call('UNLINK', KEYS[i]) end
return removed
