-- Holds that ran out more than ten seconds ago, by event. The index on held bookings answers it.
SELECT events.shard, events.id, count(*), extract(epoch FROM now() - min(bookings.expires_at))::float8
FROM bookings
JOIN events ON events.id = bookings.event_id
WHERE bookings.status = 'held'
  AND bookings.expires_at < now() - interval '10 seconds'
  AND ($1::uuid IS NULL OR events.id = $1)
GROUP BY events.shard, events.id
