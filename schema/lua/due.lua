-- Finds holds that are due. It is asked several times a second, and so it is also the one to find that the expiry set
-- was lost, which no sale would notice: the tickets of all holds would stay taken for ever.
--
-- KEYS[1] shard   KEYS[2] certificate   KEYS[3] expiry
-- ARGV[1] how many of the first are passed over   ARGV[2] the most holds to be returned
--
-- Returns a list of event id .. booking id (32 bytes each), what is due first in front.
-- Errors: UNVERIFIED, also where the set is lost; the shard is closed then.

local shard = redis.call('HMGET', KEYS[1], 'epoch', 'clock', 'expiry')
if not shard[1] or not is_certified(KEYS[2], shard[1]) then return unverified() end
local is_lost = shard[3] and type(redis.pcall('ZSCORE', KEYS[3], '')) ~= 'string'
if is_lost then return fence_lost(KEYS[1], KEYS[2], KEYS[3]) end
local time = redis.call('TIME')
local now = math.max(time[1] * 1000 + math.floor(time[2] / 1000), tonumber(shard[2] or 0))
return redis.call('ZRANGEBYSCORE', KEYS[3], '-inf', string.format('%d', now), 'LIMIT', ARGV[1], ARGV[2])
