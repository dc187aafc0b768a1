-- Where a shard stands before its recovery, and what stands in its way.
SELECT recovery_epoch,
       (SELECT count(*) FROM gaps WHERE gaps.shard = shards.shard AND resolved_at IS NULL),
       (SELECT count(*) FROM dead_letters
        WHERE dead_letters.shard = shards.shard AND kind = 'poisoned' AND outcome IS NULL)
FROM shards
WHERE shard = $1
