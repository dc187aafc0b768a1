-- Positions and offsets, in the transaction that wrote what they stand for.
UPDATE shards SET
    epoch          = incoming.epoch,
    recovery_epoch = greatest(shards.recovery_epoch, incoming.epoch),
    sequence       = incoming.sequence,
    digest         = incoming.digest,
    next_offset    = incoming.next_offset,
    updated_at     = now()
FROM unnest($1::int2[], $2::int4[], $3::int8[], $4::bytea[], $5::int8[])
     AS incoming (shard, epoch, sequence, digest, next_offset)
WHERE shards.shard = incoming.shard
