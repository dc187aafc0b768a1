-- Removes frames from the outbox whose records Kafka has confirmed, and moves the shard's confirmed position.
--
-- KEYS[1] shard   KEYS[2] lease   KEYS[3] outbox   KEYS[4] certificate
-- ARGV[1] token of the relay   ARGV[2] the shard's epoch as the relay knows it
-- ARGV[3], ARGV[4] epoch and sequence of the last confirmed frame: its entry id
--
-- Returns the number of frames removed. A frame that is gone already removes nothing.
-- Errors: LEASELOST where the token does not hold the lease, EPOCHCHANGED where a recovery came in between; a relay
-- that slept can therefore trim nothing. UNVERIFIED where the shard has no certificate for this Redis: an old master
-- that is back has its old epoch too.

if redis.call('GET', KEYS[2]) ~= ARGV[1] then
  return redis.error_reply('LEASELOST another relay holds this shard')
end
if redis.call('HGET', KEYS[1], 'epoch') ~= ARGV[2] then
  return redis.error_reply('EPOCHCHANGED the shard was recovered; lease it again and start from its head')
end
if not is_certified(KEYS[4], ARGV[2]) then return unverified() end
local id = ARGV[3] .. '-' .. ARGV[4]
local last = redis.call('XRANGE', KEYS[3], id, id)[1]
if not last then return 0 end

local written
for i = 1, #last[2], 2 do
  if last[2][i] == 'w' then written = last[2][i + 1] end
end
local removed = redis.call('XTRIM', KEYS[3], 'MINID', '=', ARGV[3] .. '-' .. string.format('%d', ARGV[4] + 1))
local head = redis.call('XRANGE', KEYS[3], '-', '+', 'COUNT', 1)[1]
local head_ms = 0
if head then
  for i = 1, #head[2], 2 do
    if head[2][i] == 't' then head_ms = head[2][i + 1] end
  end
end
redis.call('HSET', KEYS[1], 'trimmed', written, 'head_ms', head_ms, 'conf_epoch', ARGV[3], 'conf_seq', ARGV[4])
return removed
