-- Nothing is mended silently (promise P5). Each mend is a row: written before Redis is touched and ended afterwards, or
-- written in the very transaction that mends PostgreSQL. A rebuild's row is also its request: whoever recovers shards
-- carries it out, and begins again where it was interrupted.
CREATE TABLE repairs (
    id       int8        PRIMARY KEY GENERATED ALWAYS AS IDENTITY,
    kind     text        NOT NULL CHECK (kind IN ('rebuild', 'counts', 'restate', 'stock', 'gap',
                                                               'dead_letter', 'alarm')),
    shard    int2        NOT NULL REFERENCES shards (shard),
    -- Null where the whole shard is rebuilt.
    event_id uuid,
    asked_by text        NOT NULL,
    asked_at timestamptz NOT NULL DEFAULT now(),
    -- What was found, in words.
    before   text        NOT NULL,
    -- What is so since; null while it is not known.
    after    text,
    -- `refused`: nothing was changed, and `after` says why. `unknown`: the process that mended was interrupted.
    outcome  text        CHECK (outcome IN ('done', 'refused', 'unknown')),
    ended_at timestamptz,
    CHECK ((outcome IS NULL) = (ended_at IS NULL)),
    CHECK ((outcome IS NULL) = (after IS NULL))
);

-- What is asked for twice is done once.
CREATE UNIQUE INDEX repairs_rebuilds_open ON repairs (shard, coalesce(event_id, '00000000-0000-0000-0000-000000000000'))
    WHERE kind = 'rebuild' AND outcome IS NULL;
CREATE INDEX repairs_open ON repairs (shard) WHERE outcome IS NULL;

-- By how much PostgreSQL's counts of a ticket type differ from Redis' at the same position: what an alarm about counts
-- says in words, for the command that mends it.
ALTER TABLE alarms
    ADD COLUMN ticket_type_id  uuid,
    ADD COLUMN held_difference int8,
    ADD COLUMN sold_difference int8;
