-- Bookings as their last decision left them. A row only ever moves forward. Returns the rows that really changed with
-- the status that they had before; null where they are new.
--
-- `before` needs no lock: the shard's row is locked, so nobody else changes these bookings, and a WITH query sees
-- the tables as they were before the statement. (FOR UPDATE would even skip rows that the INSERT has changed.)
WITH incoming AS (
    SELECT *
    FROM unnest($1::uuid[], $2::uuid[], $3::text[], $4::text[], $5::bytea[], $6::text[], $7::text[], $8::text[],
                $9::text[], $10::int8[], $11::timestamptz[], $12::timestamptz[], $13::text[], $14::timestamptz[],
                $15::int4[], $16::int8[])
         AS t (id, event_id, caller, idempotency_key, fingerprint, customer, status, first_status, currency,
               total_amount, created_at, expires_at, payment_reference, updated_at, epoch, sequence)
),
before AS (
    SELECT bookings.id, bookings.status FROM bookings WHERE bookings.id = ANY ($1::uuid[])
),
changed AS (
    INSERT INTO bookings (id, event_id, caller, idempotency_key, fingerprint, customer, status, first_status, currency,
                          total_amount, created_at, expires_at, payment_reference, updated_at, epoch, sequence)
    SELECT * FROM incoming
    ON CONFLICT (id) DO UPDATE SET
        status            = excluded.status,
        expires_at        = excluded.expires_at,
        payment_reference = excluded.payment_reference,
        updated_at        = excluded.updated_at,
        epoch             = excluded.epoch,
        sequence          = excluded.sequence
    WHERE (bookings.epoch, bookings.sequence) < (excluded.epoch, excluded.sequence)
    RETURNING id
)
SELECT changed.id, before.status
FROM changed LEFT JOIN before USING (id)
