-- What begin_recovery.lua returned, once more. A recovery asks before it relies on what it has read meanwhile: the Redis
-- that it read may be another one than that in which it began.
--
-- KEYS[1] shard
-- ARGV[1] the epoch being recovered
--
-- Returns {identity of this Redis (run_id:master_replid), epoch and sequence of the shard's last decision}.
-- Errors: STALEEPOCH where another recovery took the shard over, or this Redis never saw this one.

local shard = redis.call('HMGET', KEYS[1], 'epoch', 'last_epoch', 'seq')
if shard[1] ~= ARGV[1] then return redis.error_reply('STALEEPOCH the shard is at epoch ' .. tostring(shard[1])) end
return { redis_identity(), tonumber(shard[2]), tonumber(shard[3]) }
