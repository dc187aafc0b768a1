-- What the certificate must name: this process and its replication history. Either alone misses a case:
-- run_id stays on promotion and FLUSHALL, master_replid stays on a restart with its file.
local function redis_identity()
  local info = redis.call('INFO', 'server', 'replication')
  return string.match(info, 'run_id:(%x+)') .. ':' .. string.match(info, 'master_replid:(%x+)')
end

-- Whether a shard of this epoch may sell: its certificate names this Redis and that epoch.
local function is_certified(certificate, epoch)
  return redis.call('GET', certificate) == redis_identity() .. ':' .. epoch
end

local function unverified()
  return redis.error_reply('UNVERIFIED the shard has no certificate for this Redis; recovery must check it first')
end
