-- Reads events as they stand at one moment, and where their shard stands then. Writes nothing, and so is answered by a Redis that is
-- full, in which no transaction may begin.
--
-- KEYS[1] shard   KEYS[2..] event hashes
--
-- Returns {epoch, sequence, the hash of each event as field, value, ...}; epoch and sequence are nil where the shard's hash is
-- missing, and a key that is no hash says why, as one string.

local reply = redis.call('HMGET', KEYS[1], 'epoch', 'seq')
for i = 2, #KEYS do
  local hash = redis.pcall('HGETALL', KEYS[i])
  reply[i + 1] = hash.err or hash
end
return reply
