-- Capacity and counts of the ticket types that were touched, in one step, so that the guard sees the final row only.
-- Returns them as they are now, to be compared with what Redis counted at the same position.
UPDATE ticket_types SET
    capacity = coalesce(incoming.capacity, ticket_types.capacity),
    held     = (ticket_types.held + incoming.held)::int4,
    sold     = (ticket_types.sold + incoming.sold)::int4
FROM unnest($1::uuid[], $2::int4[], $3::int8[], $4::int8[]) AS incoming (id, capacity, held, sold)
WHERE ticket_types.id = incoming.id
RETURNING ticket_types.id, ticket_types.capacity, ticket_types.held, ticket_types.sold
