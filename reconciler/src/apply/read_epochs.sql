-- Where the latest epochs of shards began.
SELECT shard,
       ARRAY(SELECT epochs.epoch FROM epochs WHERE epochs.shard = asked.shard ORDER BY epochs.epoch DESC LIMIT 100),
       ARRAY(SELECT began_behind FROM epochs WHERE epochs.shard = asked.shard ORDER BY epochs.epoch DESC LIMIT 100)
FROM unnest($1::int2[]) AS asked (shard)
