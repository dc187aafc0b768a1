COPY bookings (id, event_id, caller, idempotency_key, fingerprint, customer, status, first_status, currency,
               total_amount, created_at, expires_at, payment_reference, updated_at, epoch, sequence)
FROM STDIN (FORMAT binary)
