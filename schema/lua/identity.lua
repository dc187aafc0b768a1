-- What the certificate must name: this process and its replication history. Either alone misses a case:
-- run_id stays on promotion and FLUSHALL, master_replid stays on a restart with its file.
local function redis_identity()
  local info = redis.call('INFO', 'server', 'replication')
  return string.match(info, 'run_id:(%x+)') .. ':' .. string.match(info, 'master_replid:(%x+)')
end

-- Whether a shard of this epoch may sell: its certificate names this Redis and that epoch. Both ids have forty digits. INFO
-- is searched for what the certificate says, since looking for a pattern takes longer than all the rest of INFO.
local function is_certified(certificate, epoch)
  local names = redis.call('GET', certificate)
  if not names or string.sub(names, 41, 41) ~= ':' or string.sub(names, 82, 82) ~= ':' then return false end
  if tonumber(string.sub(names, 83)) ~= tonumber(epoch) then return false end
  local info = redis.call('INFO', 'server', 'replication')
  return string.find(info, '\nrun_id:' .. string.sub(names, 1, 40) .. '\r', 1, true) ~= nil
    and string.find(info, '\nmaster_replid:' .. string.sub(names, 42, 81) .. '\r', 1, true) ~= nil
end

local function unverified()
  return redis.error_reply('UNVERIFIED the shard has no certificate for this Redis; recovery must check it first')
end

-- Closes a shard of which a key was lost, for every client, old and new. The reconciler sees a shard without a
-- certificate and recovers it; the field `lost` tells it to restore the shard even if all counters agree.
local function fence_lost(shard, certificate, key)
  redis.call('DEL', certificate)
  redis.call('HSET', shard, 'lost', key)
  return redis.error_reply('UNVERIFIED the shard has lost ' .. key .. '; recovery must restore it first')
end
