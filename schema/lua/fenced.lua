-- For a recovery that lets a shard decide something while it is fenced: placed behind prelude.lua, it asks for the
-- epoch being recovered and for the Redis in which that began (the last two arguments) where others ask for a certificate. In
-- another Redis the decision would take a position that the first one may have given to another. The outbox has no bounds here,
-- since the recovery drains it.

local function open_shard()
  local shard = read_shard()
  if not shard or shard.epoch ~= tonumber(ARGV[#ARGV - 1]) or redis.call('EXISTS', KEYS[2]) == 1 then return nil end
  if redis_identity() ~= ARGV[#ARGV] then return nil end
  shard.outbox_full = false
  shard.is_fenced = true
  return shard
end

local function unverified()
  if redis_identity() ~= ARGV[#ARGV] then
    return redis.error_reply('REDISCHANGED Redis restarted or failed over during recovery')
  end
  return redis.error_reply('STALEEPOCH the shard is certified, or another recovery took it over')
end
