-- Restoring, last: the shard itself. Its outbox was drained and removed before; all that is restored is in Kafka.
--
-- KEYS[1] shard   KEYS[2] certificate   KEYS[3] expiry
-- ARGV[1] the epoch being recovered   ARGV[2], ARGV[3] epoch and sequence of the last decision that was restored
-- ARGV[4] the shard's clock in milliseconds: the time of its last decision, at least
-- ARGV[5] 1 where all of the shard was restored, so that nothing is lost any more; 0 where only some events were
--
-- Returns 1.
-- Errors: STALEEPOCH where another recovery took the shard over.

local stale = refuse_stale(ARGV[1])
if stale then return stale end
local clock = math.max(tonumber(redis.call('HGET', KEYS[1], 'clock') or 0), tonumber(ARGV[4]))
redis.call('HSET', KEYS[1], 'last_epoch', ARGV[2], 'seq', ARGV[3], 'clock', string.format('%d', clock),
  'expiry', 1, 'head_ms', 0, 'written', 0, 'trimmed', 0, 'conf_epoch', ARGV[1], 'conf_seq', ARGV[3])
redis.call('ZADD', KEYS[3], '+inf', '')
if ARGV[5] == '1' then redis.call('HDEL', KEYS[1], 'lost') end
return 1
