-- Restoring, third: bookings of an event, with their expiries and their customers' allowances.
-- Bookings must not be restored twice, since allowances are added up.
--
-- KEYS[1] shard   KEYS[2] certificate   KEYS[3] expiry   KEYS[4] customers hash   KEYS[5..] slot hashes
-- ARGV[1] the epoch being recovered   ARGV[2] identity of the Redis in which that began (run_id:master_replid)
-- ARGV[3..] lists, each behind the number of its arguments:
--   fields of the customers hash;  the tickets to add to each;
--   expiries: time in milliseconds, event id .. booking id (32 bytes), of each that is held;
--   then for each of KEYS[5..] what is written into it: field, value, ..., first the empty field of a slot that was written
--
-- Returns 1.
-- Errors: STALEEPOCH where another recovery took the shard over, REDISCHANGED where this is another Redis.

local stale = refuse_stale(ARGV[1], ARGV[2])
if stale then return stale end

-- Lua's stack bounds how many values one call can take. Even, since they are pairs.
local CHUNK = 2000
local function write_pairs(command, key, list, from, to)
  for first = from, to, CHUNK do
    redis.call(command, key, unpack(list, first, math.min(first + CHUNK - 1, to)))
  end
end

local at = 3
-- Where the next list begins, and where it ends.
local function next_list()
  local from = at + 1
  at = from + ARGV[at]
  return from, at - 1
end

local fields_from, fields_to = next_list()
local tickets_from = next_list()
for from = fields_from, fields_to, CHUNK do
  local to = math.min(from + CHUNK - 1, fields_to)
  local tickets = redis.call('HMGET', KEYS[4], unpack(ARGV, from, to))
  local written = {}
  for i = from, to do
    local before, added = tickets[i - from + 1], ARGV[tickets_from + i - fields_from]
    written[#written + 1] = ARGV[i]
    -- Most customers come once, and adding and writing a number takes longer than all else that is done with one.
    written[#written + 1] = before and before + added or added
  end
  redis.call('HSET', KEYS[4], unpack(written))
end
write_pairs('ZADD', KEYS[3], ARGV, next_list())
local slots = {}
for slot = 5, #KEYS do
  write_pairs('HSET', KEYS[slot], ARGV, next_list())
  slots[#slots + 1] = string.sub(KEYS[slot], #KEYS[4] + 1) -- its number, see event.lua
  slots[#slots + 1] = '1'
end
-- Behind the slots, and not with each of them: Redis is what a restoration waits for.
write_pairs('HSET', KEYS[4], slots, 1, #slots)
return 1
