-- Puts an event on sale: creates its inventory where it is absent, and only there.
--
-- KEYS[1..4], ARGV[1..3]  see prelude.lua
-- KEYS[5] event hash      KEYS[6] customers hash
-- ARGV[4] event id (16 bytes)
-- ARGV[5..] field, value pairs of the event hash, without status, updated, held and sold
--
-- Returns {outcome, the event hash as a JSON object}: C created, P was there already, O outbox full.
-- Errors: UNVERIFIED, also where one of the two keys is missing while the other is there, WRITEFAILED.

local shard = open_shard()
if not shard then return unverified() end

local has_event, has_customers = redis.call('EXISTS', KEYS[5]) == 1, redis.call('EXISTS', KEYS[6]) == 1
if has_event ~= has_customers then return fence_lost(KEYS[1], KEYS[2], has_event and KEYS[6] or KEYS[5]) end
if has_event then return { 'P', cjson.encode(read_whole(KEYS[5])) } end
if shard.outbox_full then return { 'O', '' } end

local event = changed
for i = 5, #ARGV, 2 do event[ARGV[i]] = ARGV[i + 1] end
event.status = 'on_sale'
event.updated = string.format('%d', shard.now)
for ordinal = 0, tonumber(event.types) - 1 do
  event['held' .. ordinal] = '0'
  event['sold' .. ordinal] = '0'
end

next_sequence(shard)
local image = cjson.encode(event)
decide(shard, PUBLISHED_KIND, ARGV[4], image, '')
return commit(shard, { 'C', image }, function()
  write_changed()
  redis.call('HSET', KEYS[6], '', '0')
end)
