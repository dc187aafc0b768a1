-- How far the shards of a batch are applied, and where their latest epochs began. The lock makes two appliers of one shard
-- take turns, in one order; it leaves the key alone, which a new event of the shard refers to.
SELECT shard, epoch, sequence, digest, next_offset,
       ARRAY(SELECT epochs.epoch FROM epochs WHERE epochs.shard = shards.shard ORDER BY epochs.epoch DESC LIMIT 100),
       ARRAY(SELECT began_behind FROM epochs WHERE epochs.shard = shards.shard ORDER BY epochs.epoch DESC LIMIT 100)
FROM shards
WHERE shard = ANY ($1::int2[])
ORDER BY shard
FOR NO KEY UPDATE OF shards
