-- What the scripts that restore a shard share. It is placed in front of the script's own text.

-- A recoverer that slept changes nothing: the error reply where the epoch is not the one being recovered, else nil.
local function refuse_stale(epoch)
  local now = redis.call('HGET', KEYS[1], 'epoch')
  if now ~= epoch then return redis.error_reply('STALEEPOCH the shard is at epoch ' .. tostring(now)) end
  if redis.call('EXISTS', KEYS[2]) == 1 then
    return redis.error_reply('STALEEPOCH the shard is certified; nothing is restored into it')
  end
end
