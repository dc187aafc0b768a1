-- What the scripts that restore a shard share. It is placed between identity.lua and the script's own text.

-- A recoverer that slept changes nothing, and nobody writes into another Redis than that in which the recovery began: a replica that
-- was promoted since has its epoch, and may lack some of what was restored before. The error reply, or nil where all is well.
local function refuse_stale(epoch, identity)
  local now = redis.call('HGET', KEYS[1], 'epoch')
  if now ~= epoch then return redis.error_reply('STALEEPOCH the shard is at epoch ' .. tostring(now)) end
  if redis.call('EXISTS', KEYS[2]) == 1 then
    return redis.error_reply('STALEEPOCH the shard is certified; nothing is restored into it')
  end
  if redis_identity() ~= identity then
    return redis.error_reply('REDISCHANGED Redis restarted or failed over during recovery')
  end
end
