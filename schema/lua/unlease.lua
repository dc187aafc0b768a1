-- Gives the shard's lease back, so that another instance need not wait for it to run out.
--
-- KEYS[1] lease
-- ARGV[1] token of the instance
--
-- Returns 1 where the lease was the caller's, else 0.

if redis.call('GET', KEYS[1]) ~= ARGV[1] then return 0 end
return redis.call('DEL', KEYS[1])
