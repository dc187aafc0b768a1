-- Looks at a shard for a crowd that retries what was booked: the epoch in which the shard may sell, where the slots of all
-- their bookings are there. Within an epoch bookings are only added to a slot, so that one that was made in it is there.
-- Writes nothing.
--
-- KEYS[1] shard   KEYS[2] certificate   KEYS[3..] slots
--
-- Returns false where the shard may not sell or a slot is missing: book.lua says which, and closes a shard that has lost
-- a key.

local epoch = redis.call('HGET', KEYS[1], 'epoch')
if not epoch or not is_certified(KEYS[2], epoch) then return false end
return redis.call('EXISTS', unpack(KEYS, 3)) == #KEYS - 2 and tonumber(epoch)
