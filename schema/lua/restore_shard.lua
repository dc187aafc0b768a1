-- Restoring, last: the shard itself. Its outbox was drained and removed before; all that is restored is in Kafka.
--
-- KEYS[1] shard   KEYS[2] certificate   KEYS[3] expiry
-- ARGV[1] the epoch being recovered   ARGV[2] identity of the Redis in which that began (run_id:master_replid)
-- ARGV[3], ARGV[4] epoch and sequence of the last decision that was restored
-- ARGV[5] the shard's clock in milliseconds: the time of its last decision, at least
-- ARGV[6] 1 where all of the shard was restored, so that nothing is lost any more; 0 where only some events were
--
-- Returns 1.
-- Errors: STALEEPOCH where another recovery took the shard over, REDISCHANGED where this is another Redis.

local stale = refuse_stale(ARGV[1], ARGV[2])
if stale then return stale end
local clock = math.max(tonumber(redis.call('HGET', KEYS[1], 'clock') or 0), tonumber(ARGV[5]))
redis.call('HSET', KEYS[1], 'last_epoch', ARGV[3], 'seq', ARGV[4], 'clock', string.format('%d', clock),
  'expiry', 1, 'head_ms', 0, 'written', 0, 'trimmed', 0, 'conf_epoch', ARGV[1], 'conf_seq', ARGV[4])
redis.call('ZADD', KEYS[3], '+inf', '')
if ARGV[6] == '1' then redis.call('HDEL', KEYS[1], 'lost') end
return 1
