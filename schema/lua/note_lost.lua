-- Notes that a key of the shard is missing, as a script that misses it does. Whatever is put in its place from then on, the shard
-- is restored as a whole before it is certified.
--
-- KEYS[1] shard   KEYS[2] certificate   KEYS[3] the key
-- ARGV[1] the epoch being recovered
--
-- Returns 1.
-- Errors: STALEEPOCH where another recovery took the shard over.

local stale = refuse_stale(ARGV[1])
if stale then return stale end
redis.call('HSETNX', KEYS[1], 'lost', KEYS[3])
return 1
