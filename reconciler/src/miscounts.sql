-- Ticket types whose counts are not the sums of their bookings, in one snapshot.
WITH summed AS (
    SELECT booking_items.ticket_type_id,
           coalesce(sum(quantity) FILTER (WHERE bookings.status = 'held'), 0)      AS held,
           coalesce(sum(quantity) FILTER (WHERE bookings.status = 'confirmed'), 0) AS sold
    FROM booking_items
    JOIN bookings ON bookings.id = booking_items.booking_id
    WHERE $1::uuid IS NULL OR bookings.event_id = $1
    GROUP BY booking_items.ticket_type_id
)
SELECT events.shard, events.id, ticket_types.id, ticket_types.held::int8, ticket_types.sold::int8,
       coalesce(summed.held, 0)::int8, coalesce(summed.sold, 0)::int8
FROM ticket_types
JOIN events ON events.id = ticket_types.event_id
LEFT JOIN summed ON summed.ticket_type_id = ticket_types.id
WHERE ($1::uuid IS NULL OR events.id = $1)
  AND (ticket_types.held, ticket_types.sold) IS DISTINCT FROM (coalesce(summed.held, 0), coalesce(summed.sold, 0))
ORDER BY events.shard, events.id, ticket_types.ordinal
