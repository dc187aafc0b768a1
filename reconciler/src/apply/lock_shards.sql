-- How far the shards of a batch are applied. The lock makes two appliers of one shard take turns, in one order; it leaves the key
-- alone, which a new event of the shard refers to. A row that was waited for is read as it is then, and of it alone that is so:
-- where the epochs began another statement asks.
SELECT shard, epoch, sequence, digest, next_offset
FROM shards
WHERE shard = ANY ($1::int2[])
ORDER BY shard
FOR NO KEY UPDATE
