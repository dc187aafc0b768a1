-- Reads a booking, where the shard is verified: what an unverified Redis holds may be older than what was acknowledged.
-- Writes nothing.
--
-- KEYS[1] shard   KEYS[2] certificate   KEYS[3] slot hash   KEYS[4] customers hash   KEYS[5] event hash
-- ARGV[1] booking id
--
-- Returns the booking's image, or false where there is no such booking.
-- Errors: UNVERIFIED, also where the slot or the customers hash is lost (see inventory.lua). That closes the shard with the next
-- call that would change it.

local epoch = redis.call('HGET', KEYS[1], 'epoch')
if not epoch or not is_certified(KEYS[2], epoch) then return unverified() end
-- Under the end of its id lie the id's beginning and the image, and a slot's number is cut out of its key: see event.lua.
local found = redis.pcall('HMGET', KEYS[3], string.sub(ARGV[1], 7), '')
if not found[1] and not found[2] then
  local marks = redis.pcall('HMGET', KEYS[4], '', string.sub(KEYS[3], #KEYS[4] + 1))
  local is_lost = found.err or marks[2] or not marks[1]
  if is_lost and redis.call('EXISTS', KEYS[4], KEYS[5]) > 0 then return unverified() end
end
if not found[1] or string.sub(found[1], 1, 6) ~= string.sub(ARGV[1], 1, 6) then return false end
return string.sub(found[1], 7)
