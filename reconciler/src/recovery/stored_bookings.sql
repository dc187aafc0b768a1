-- A page of an event's bookings, the newest first, behind a given one; a row for each item. The index on an event's
-- bookings gives the page in its order, and the primary key of the items each booking's in theirs: nothing is sorted.
SELECT page.id, page.caller, page.idempotency_key, page.fingerprint, page.customer, page.status, page.first_status,
       page.currency::text AS currency, page.created_at, page.expires_at, page.payment_reference, page.updated_at,
       page.epoch, page.sequence, items.ticket_type_id, items.quantity, items.unit_price
FROM (
    SELECT *
    FROM bookings
    WHERE event_id = $1
      AND (created_at, id) < (coalesce($2::timestamptz, 'infinity'), coalesce($3::uuid, $1))
    ORDER BY created_at DESC, id DESC
    LIMIT $4
) AS page
CROSS JOIN LATERAL (
    SELECT ticket_type_id, quantity, unit_price
    FROM booking_items
    WHERE booking_items.booking_id = page.id
    ORDER BY ordinal
) AS items
ORDER BY page.created_at DESC, page.id DESC
