COPY booking_items (booking_id, ordinal, ticket_type_id, quantity, unit_price) FROM STDIN (FORMAT binary)
