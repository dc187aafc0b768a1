-- How far the shards of a batch are applied. The lock makes two appliers of one shard take turns, in one order.
SELECT shard, epoch, sequence, digest, next_offset
FROM shards
WHERE shard = ANY ($1::int2[])
ORDER BY shard
FOR UPDATE
