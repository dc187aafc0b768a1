-- Boxoffice's record. Redis decides, Kafka remembers, and these tables are what the decisions add up to.
--
-- Who writes: the API writes drafts (`events`, `ticket_types`) until an event is frozen for publication. From then
-- on the reconciler alone writes, and only what it reads from the log.

-- What was fixed when Boxoffice was installed. One row; every process checks it at start.
CREATE TABLE installation (
    one          boolean     PRIMARY KEY DEFAULT true CHECK (one),
    shards       int2        NOT NULL CHECK (shards BETWEEN 1 AND 1024),
    installed_at timestamptz NOT NULL DEFAULT now()
);

-- One row a shard: how far the log has been applied. It is the whole of deduplication: a record at or below this
-- position changes nothing. It is updated in the transaction that applies the records, and so is the offset, which
-- is why a redelivered batch is harmless and a lost one impossible.
CREATE TABLE shards (
    shard       int2        PRIMARY KEY,
    -- The epoch that recovery has taken for this shard; at least the epoch of the last applied record.
    recovery_epoch int4     NOT NULL DEFAULT 0,
    epoch       int4        NOT NULL DEFAULT 0,
    sequence    int8        NOT NULL DEFAULT 0,
    -- SHA-256 of the last applied record: the same position with other content is an alarm.
    digest      bytea,
    -- The offset in the shard's partition at which the consumer goes on.
    next_offset int8        NOT NULL DEFAULT 0,
    updated_at  timestamptz NOT NULL DEFAULT now()
);

-- Who does the work that only one process may do at a time. A holder renews its row; where it has run out, another
-- may take it. A holder that slept harms nothing: what it writes is checked by position and epoch.
CREATE TABLE leases (
    name       text        PRIMARY KEY,
    holder     text        NOT NULL,
    expires_at timestamptz NOT NULL
);
