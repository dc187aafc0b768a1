-- Shards with their events on sale and the counts of these, in one snapshot: position and counts belong together.
SELECT shards.shard, shards.epoch, shards.sequence, events.id, ticket_types.id,
       ticket_types.capacity, ticket_types.held, ticket_types.sold
FROM shards
LEFT JOIN events ON events.shard = shards.shard
    AND events.status IN ('on_sale', 'paused')
    AND ($2::uuid IS NULL OR events.id = $2)
LEFT JOIN ticket_types ON ticket_types.event_id = events.id
WHERE shards.shard = ANY ($1::int2[])
ORDER BY shards.shard, events.id, ticket_types.ordinal
