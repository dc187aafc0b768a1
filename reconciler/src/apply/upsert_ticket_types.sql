-- The ticket types of events that changed. The capacity of a row that is there already is set later, together with
-- its counts, so that the guard against overselling sees the final row only.
INSERT INTO ticket_types (id, event_id, ordinal, name, price, per_customer_limit, capacity)
SELECT id, event_id, ordinal, name, price, per_customer_limit, capacity
FROM unnest($1::uuid[], $2::uuid[], $3::int2[], $4::text[], $5::int8[], $6::int4[], $7::int4[])
     AS incoming (id, event_id, ordinal, name, price, per_customer_limit, capacity)
ON CONFLICT (id) DO UPDATE SET
    name               = excluded.name,
    price              = excluded.price,
    per_customer_limit = excluded.per_customer_limit
WHERE (ticket_types.name, ticket_types.price, ticket_types.per_customer_limit)
      IS DISTINCT FROM (excluded.name, excluded.price, excluded.per_customer_limit)
