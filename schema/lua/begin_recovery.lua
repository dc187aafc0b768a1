-- Starts the recovery of a shard: a new epoch, no certificate. From here on nothing is decided until certify.lua.
--
-- KEYS[1] shard   KEYS[2] certificate   KEYS[3] expiry   KEYS[4] outbox
-- ARGV[1] the new epoch, taken in PostgreSQL
--
-- Returns {identity of this Redis (run_id:master_replid), epoch and sequence of the shard's last decision}; both are 0
-- for a shard that was never initialised, or was lost.
-- Errors: STALEEPOCH where this Redis has seen that epoch or a later one: another recovery is under way.

local epoch = tonumber(redis.call('HGET', KEYS[1], 'epoch') or 0)
if epoch >= tonumber(ARGV[1]) then
  return redis.error_reply('STALEEPOCH the shard is at epoch ' .. epoch .. '; a later recovery took it over')
end
redis.call('DEL', KEYS[2])
local fields = { 'seq', 'last_epoch', 'clock', 'head_ms', 'written', 'trimmed', 'conf_epoch', 'conf_seq' }
for _, field in ipairs(fields) do redis.call('HSETNX', KEYS[1], field, 0) end
redis.call('HSET', KEYS[1], 'epoch', ARGV[1])
local function lose(key)
  redis.call('HSET', KEYS[1], 'lost', key)
  redis.call('UNLINK', key)
end
-- The first recovery gives the expiry set its empty member and says so in the shard. From then on its absence is a loss,
-- and a key of another type always is.
local marker = redis.pcall('ZSCORE', KEYS[3], '')
if type(marker) == 'table' or not marker and redis.call('HEXISTS', KEYS[1], 'expiry') == 1 then lose(KEYS[3]) end
-- So is an outbox of another type. What it held is not in the log, and the barrier shows that as a gap.
if type(redis.pcall('XLEN', KEYS[4])) == 'table' then lose(KEYS[4]) end
redis.call('ZADD', KEYS[3], '+inf', '')
redis.call('HSET', KEYS[1], 'expiry', 1)
local last = redis.call('HMGET', KEYS[1], 'last_epoch', 'seq')
return { redis_identity(), tonumber(last[1]), tonumber(last[2]) }
