-- What the certificate must name: this process and its replication history. Either alone misses a case:
-- run_id stays on promotion and FLUSHALL, master_replid stays on a restart with its file.
local function redis_identity()
  local info = redis.call('INFO', 'server', 'replication')
  return string.match(info, 'run_id:(%x+)') .. ':' .. string.match(info, 'master_replid:(%x+)')
end
