-- Notes that a key of the shard is missing, as a script that misses it does. Whatever is put in its place from then on, the shard
-- is restored as a whole before it is certified.
--
-- KEYS[1] shard   KEYS[2] certificate   KEYS[3] the key
-- ARGV[1] the epoch being recovered   ARGV[2] identity of the Redis in which that began (run_id:master_replid)
--
-- Returns 1.
-- Errors: STALEEPOCH where another recovery took the shard over, REDISCHANGED where this is another Redis.

local stale = refuse_stale(ARGV[1], ARGV[2])
if stale then return stale end
redis.call('HSETNX', KEYS[1], 'lost', KEYS[3])
return 1
