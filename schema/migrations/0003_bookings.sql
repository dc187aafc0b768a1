-- Every booking that was ever acknowledged, once, as it is after its last decision.
CREATE TABLE bookings (
    id                uuid        PRIMARY KEY,
    event_id          uuid        NOT NULL REFERENCES events (id),
    caller            text        NOT NULL,
    idempotency_key   text        NOT NULL,
    -- Of the request that made it: a retry with another body is told from a replay by it.
    fingerprint       bytea       NOT NULL,
    customer          text        NOT NULL,
    status            text        NOT NULL CHECK (status IN ('held', 'confirmed', 'cancelled', 'expired')),
    -- What the first response said, so that it can be given again to the letter.
    first_status      text        NOT NULL CHECK (first_status IN ('held', 'confirmed')),
    currency          char(3)     NOT NULL,
    total_amount      int8        NOT NULL CHECK (total_amount >= 0),
    created_at        timestamptz NOT NULL,
    -- When its hold runs out, or ran out; null where it was never held.
    expires_at        timestamptz,
    payment_reference text,
    updated_at        timestamptz NOT NULL,
    -- The decision that last changed this row: a row only ever moves forward.
    epoch             int4        NOT NULL,
    sequence          int8        NOT NULL,
    -- Promise P2's last guard. It comes too late to undo a 201, so a violation is an alarm.
    CONSTRAINT one_booking_a_key UNIQUE (event_id, caller, idempotency_key)
);

-- An event's and a customer's bookings, newest first, in pages. A booking's id begins with its time.
CREATE INDEX bookings_of_event ON bookings (event_id, created_at DESC, id DESC);
CREATE INDEX bookings_of_customer ON bookings (customer, created_at DESC, id DESC);
-- Holds that Redis should have expired: the audit looks for those that are overdue.
CREATE INDEX bookings_held ON bookings (expires_at) WHERE status = 'held';

-- What was bought; written once with its booking and never changed.
CREATE TABLE booking_items (
    booking_id     uuid NOT NULL REFERENCES bookings (id),
    -- Its place in the request, from 0.
    ordinal        int2 NOT NULL,
    ticket_type_id uuid NOT NULL REFERENCES ticket_types (id),
    quantity       int4 NOT NULL CHECK (quantity BETWEEN 1 AND 1000),
    unit_price     int8 NOT NULL CHECK (unit_price >= 0),
    PRIMARY KEY (booking_id, ordinal)
);
