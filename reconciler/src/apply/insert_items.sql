-- The items of new bookings; they never change.
INSERT INTO booking_items (booking_id, ordinal, ticket_type_id, quantity, unit_price)
SELECT * FROM unnest($1::uuid[], $2::int2[], $3::uuid[], $4::int4[], $5::int8[])
