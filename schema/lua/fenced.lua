-- For a recovery that lets a shard decide something while it is fenced: placed behind prelude.lua, it asks for the
-- epoch being recovered (the last argument) where others ask for a certificate. The outbox has no bounds here, since the
-- recovery drains it.

local function open_shard()
  local shard = read_shard()
  if not shard or shard.epoch ~= tonumber(ARGV[#ARGV]) or redis.call('EXISTS', KEYS[2]) == 1 then return nil end
  shard.outbox_full = false
  shard.is_fenced = true
  return shard
end

local function unverified()
  return redis.error_reply('STALEEPOCH the shard is certified, or another recovery took it over')
end
