-- An on-sale. A draft lives here alone; publication freezes it and hands it to Redis.
CREATE TABLE events (
    id                 uuid        PRIMARY KEY,
    shard              int2        NOT NULL REFERENCES shards (shard),
    name               text        NOT NULL,
    starts_at          timestamptz NOT NULL,
    sales_open_at      timestamptz,
    sales_close_at     timestamptz,
    per_customer_limit int4        CHECK (per_customer_limit >= 1),
    hold_seconds       int4        NOT NULL CHECK (hold_seconds BETWEEN 1 AND 86400),
    currency           char(3)     NOT NULL,
    status             text        NOT NULL DEFAULT 'draft' CHECK (status IN ('draft', 'on_sale', 'paused', 'closed')),
    -- In how many slots Redis keeps the bookings; set when the draft is frozen, never changed.
    slots              int4,
    -- Set under a row lock right before the event is published in Redis. From here on this row changes only through
    -- the log, even if the publication itself has to be repeated.
    frozen_at          timestamptz,
    created_at         timestamptz NOT NULL,
    updated_at         timestamptz NOT NULL,
    -- The decision that last changed this row; 0 for a draft.
    epoch              int4        NOT NULL DEFAULT 0,
    sequence           int8        NOT NULL DEFAULT 0,
    CHECK (sales_close_at > sales_open_at)
);

-- Lists go newest first, in pages after a given event.
CREATE INDEX events_newest_first ON events (created_at DESC, id DESC);

CREATE TABLE ticket_types (
    id                 uuid   PRIMARY KEY,
    event_id           uuid   NOT NULL REFERENCES events (id),
    -- Its place in the event, from 0; bookings in Redis name it by this number.
    ordinal            int2   NOT NULL,
    name               text   NOT NULL,
    price              int8   NOT NULL CHECK (price >= 0),
    per_customer_limit int4   CHECK (per_customer_limit >= 1),
    capacity           int4   NOT NULL CHECK (capacity >= 1),
    -- Counted from booking rows that really changed, never copied from Redis.
    held               int4   NOT NULL DEFAULT 0 CHECK (held >= 0),
    sold               int4   NOT NULL DEFAULT 0 CHECK (sold >= 0),
    UNIQUE (event_id, ordinal),
    -- The last guard of promise P1. The scripts refuse long before; should one ever be wrong, the record is set
    -- aside as an alarm instead of being believed.
    CONSTRAINT never_oversold CHECK (held::int8 + sold::int8 <= capacity)
);
