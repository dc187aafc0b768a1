-- Reads an event, its stock and whether it may be sold, as they stand at one moment. Writes nothing.
--
-- KEYS[1] shard   KEYS[2] certificate   KEYS[3] event hash
--
-- Returns {certified 0 or 1, epoch, sequence, Redis' time in milliseconds, the event hash as field, value, ...};
-- epoch and sequence are -1 where the shard's hash is missing.

local shard = redis.call('HMGET', KEYS[1], 'epoch', 'seq', 'clock')
local certified = shard[1] and is_certified(KEYS[2], shard[1])
local time = redis.call('TIME')
local now = math.max(time[1] * 1000 + math.floor(time[2] / 1000), tonumber(shard[3] or 0))
return { certified and 1 or 0, tonumber(shard[1] or -1), tonumber(shard[2] or -1), now, redis.call('HGETALL', KEYS[3]) }
