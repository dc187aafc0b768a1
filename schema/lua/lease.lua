-- Takes or renews the shard's lease, which makes its holder the shard's relay and expirer.
--
-- KEYS[1] shard   KEYS[2] lease
-- ARGV[1] token of the instance   ARGV[2] time to live in milliseconds
--
-- Returns the shard's epoch where the lease is the caller's now, -1 where another holds it, -2 where the shard was
-- never initialised. The lease only keeps two relays from doing the same work: what they may change is checked by
-- token and epoch in trim.lua.

local holder = redis.call('GET', KEYS[2])
if holder and holder ~= ARGV[1] then return -1 end
local epoch = redis.call('HGET', KEYS[1], 'epoch')
if not epoch then return -2 end
redis.call('SET', KEYS[2], ARGV[1], 'PX', ARGV[2])
return tonumber(epoch)
