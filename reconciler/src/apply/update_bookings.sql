-- Bookings that are rows already, as their last decision left them. A row only ever moves forward. Returns the rows that
-- really changed.
UPDATE bookings SET
    status            = incoming.status,
    expires_at        = incoming.expires_at,
    payment_reference = incoming.payment_reference,
    updated_at        = incoming.updated_at,
    epoch             = incoming.epoch,
    sequence          = incoming.sequence
FROM unnest($1::uuid[], $2::text[], $3::timestamptz[], $4::text[], $5::timestamptz[], $6::int4[], $7::int8[])
     AS incoming (id, status, expires_at, payment_reference, updated_at, epoch, sequence)
WHERE bookings.id = incoming.id AND (bookings.epoch, bookings.sequence) < (incoming.epoch, incoming.sequence)
RETURNING bookings.id
