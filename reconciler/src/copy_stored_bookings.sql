-- A page of an event's bookings, the newest first, behind a given one; a row for each item. The index on an event's
-- bookings gives the page in its order, and the primary key of the items each booking's in theirs: nothing is sorted.
-- What follows the item's columns is read of a booking's first row only.
COPY (
    SELECT page.id, items.ticket_type_id, items.quantity, items.unit_price,
           page.updated_at, page.caller, page.idempotency_key, page.fingerprint, page.customer, page.status,
           page.first_status, page.currency::text, page.created_at, page.expires_at, page.payment_reference,
           page.epoch, page.sequence
    FROM (
        SELECT *
        FROM bookings
        WHERE event_id = '{event}'
          AND (created_at, id) < (timestamptz '{created_at}', uuid '{id}')
        ORDER BY created_at DESC, id DESC
        LIMIT {limit}
    ) AS page
    CROSS JOIN LATERAL (
        SELECT ticket_type_id, quantity, unit_price
        FROM booking_items
        WHERE booking_items.booking_id = page.id
        ORDER BY ordinal
    ) AS items
    ORDER BY page.created_at DESC, page.id DESC
) TO STDOUT (FORMAT binary)
