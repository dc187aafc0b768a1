-- A page of an event's bookings, the newest first, behind a given one. The index on an event's bookings answers it.
SELECT page.id, page.caller, page.idempotency_key, page.fingerprint, page.customer, page.status, page.first_status,
       page.currency::text AS currency, page.created_at, page.expires_at, page.payment_reference, page.updated_at,
       page.epoch, page.sequence, items.ticket_types, items.quantities, items.prices
FROM (
    SELECT *
    FROM bookings
    WHERE event_id = $1
      AND (created_at, id) < (coalesce($2::timestamptz, 'infinity'), coalesce($3::uuid, $1))
    ORDER BY created_at DESC, id DESC
    LIMIT $4
) AS page
CROSS JOIN LATERAL (
    SELECT array_agg(ticket_type_id ORDER BY ordinal) AS ticket_types,
           array_agg(quantity ORDER BY ordinal)       AS quantities,
           array_agg(unit_price ORDER BY ordinal)     AS prices
    FROM booking_items
    WHERE booking_items.booking_id = page.id
) AS items
ORDER BY page.created_at DESC, page.id DESC
