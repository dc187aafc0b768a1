-- Events as their last decision left them. A published event is there as a draft; after a restored backup it may not
-- be, and is made from its image. Returns the events that really changed.
INSERT INTO events (id, shard, name, starts_at, sales_open_at, sales_close_at, per_customer_limit, hold_seconds,
                    currency, status, slots, frozen_at, created_at, updated_at, epoch, sequence)
SELECT id, shard, name, starts_at, sales_open_at, sales_close_at, per_customer_limit, hold_seconds,
       currency, status, slots, updated_at, created_at, updated_at, epoch, sequence
FROM unnest($1::uuid[], $2::int2[], $3::text[], $4::timestamptz[], $5::timestamptz[], $6::timestamptz[], $7::int4[],
            $8::int4[], $9::text[], $10::text[], $11::int4[], $12::timestamptz[], $13::timestamptz[], $14::int4[],
            $15::int8[])
     AS incoming (id, shard, name, starts_at, sales_open_at, sales_close_at, per_customer_limit, hold_seconds,
                  currency, status, slots, created_at, updated_at, epoch, sequence)
ORDER BY id
ON CONFLICT (id) DO UPDATE SET
    name               = excluded.name,
    starts_at          = excluded.starts_at,
    sales_open_at      = excluded.sales_open_at,
    sales_close_at     = excluded.sales_close_at,
    per_customer_limit = excluded.per_customer_limit,
    hold_seconds       = excluded.hold_seconds,
    currency           = excluded.currency,
    status             = excluded.status,
    slots              = excluded.slots,
    frozen_at          = coalesce(events.frozen_at, excluded.frozen_at),
    updated_at         = excluded.updated_at,
    epoch              = excluded.epoch,
    sequence           = excluded.sequence
WHERE (events.epoch, events.sequence) < (excluded.epoch, excluded.sequence)
RETURNING id
