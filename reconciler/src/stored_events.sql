-- The published events of a shard with their ticket types.
SELECT events.id, events.name, events.starts_at, events.sales_open_at, events.sales_close_at,
       events.per_customer_limit, events.hold_seconds, events.currency::text AS currency, events.status, events.slots,
       events.created_at, events.updated_at,
       ticket_types.id AS ticket_type_id, ticket_types.name AS ticket_type_name, ticket_types.price,
       ticket_types.per_customer_limit AS ticket_type_limit, ticket_types.capacity, ticket_types.held,
       ticket_types.sold
FROM events
JOIN ticket_types ON ticket_types.event_id = events.id
WHERE events.shard = $1 AND events.status <> 'draft'
ORDER BY events.id, ticket_types.ordinal
