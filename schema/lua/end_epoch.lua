-- Closes a shard that stands in an epoch which is over: a later one was begun in another Redis, of which this one never heard. It
-- is an old primary then, to which an address leads again, and its certificate holds.
--
-- KEYS[1] shard   KEYS[2] certificate
-- ARGV[1] the latest epoch that the caller knows of
--
-- Returns 1 where there was a certificate, valid or not, else 0.

local epoch = redis.call('HGET', KEYS[1], 'epoch')
if not epoch or tonumber(epoch) >= tonumber(ARGV[1]) then return 0 end
return redis.call('DEL', KEYS[2])
