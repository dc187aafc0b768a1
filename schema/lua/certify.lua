-- Certifies a shard: it may sell. Called by recovery alone, when Redis holds what PostgreSQL holds.
--
-- KEYS[1] shard   KEYS[2] certificate
-- ARGV[1] the epoch being recovered   ARGV[2] the sequence at which Redis and PostgreSQL were found equal
-- ARGV[3] identity of the Redis that was checked (run_id:master_replid)
--
-- Returns 1.
-- Errors: STALEEPOCH where another recovery took the shard over, MOVED where the shard's sequence is another one,
-- REDISCHANGED where this is not the Redis that was checked.

local shard = redis.call('HMGET', KEYS[1], 'epoch', 'seq')
if shard[1] ~= ARGV[1] then return redis.error_reply('STALEEPOCH the shard is at epoch ' .. tostring(shard[1])) end
if shard[2] ~= ARGV[2] then return redis.error_reply('MOVED the shard is at sequence ' .. tostring(shard[2])) end
if redis_identity() ~= ARGV[3] then return redis.error_reply('REDISCHANGED Redis restarted or failed over during recovery') end
redis.call('SET', KEYS[2], redis_identity() .. ':' .. ARGV[1])
return 1
