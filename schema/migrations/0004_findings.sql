-- Nothing silent (promise P5): what is not as it should be is a row here, with the command that mends it.

-- A jump in a shard's sequence. It stops the application of that shard until it is resolved.
CREATE TABLE gaps (
    id            int8        PRIMARY KEY GENERATED ALWAYS AS IDENTITY,
    shard         int2        NOT NULL REFERENCES shards (shard),
    epoch         int4        NOT NULL,
    from_sequence int8        NOT NULL,
    to_sequence   int8        NOT NULL,
    kafka_offset  int8        NOT NULL,
    detected_at   timestamptz NOT NULL DEFAULT now(),
    resolved_at   timestamptz,
    CHECK (from_sequence <= to_sequence)
);

-- An open gap is one row, however often the consumer meets it.
CREATE UNIQUE INDEX gaps_open ON gaps (shard, from_sequence) WHERE resolved_at IS NULL;

-- A record that could not be read (`poisoned`) or not be applied (`refused`: a guard of the tables said no). It was
-- also sent to the dead-letter topic; the payload is kept here so that an operator can act on it.
CREATE TABLE dead_letters (
    id           int8        PRIMARY KEY GENERATED ALWAYS AS IDENTITY,
    shard        int2        NOT NULL REFERENCES shards (shard),
    -- Null where not even the headers gave a position.
    epoch        int4,
    sequence     int8,
    kafka_offset int8        NOT NULL,
    kind         text        NOT NULL CHECK (kind IN ('poisoned', 'refused')),
    reason       text        NOT NULL,
    payload      bytea       NOT NULL,
    received_at  timestamptz NOT NULL DEFAULT now(),
    -- Null while open.
    outcome      text        CHECK (outcome IN ('applied', 'superseded', 'discarded')),
    resolved_at  timestamptz,
    CHECK ((outcome IS NULL) = (resolved_at IS NULL)),
    UNIQUE (shard, kafka_offset)
);

-- Anything else that must not be: a record that contradicts one that was applied, totals that disagree at the same
-- position, a record of an ended epoch behind its barrier.
CREATE TABLE alarms (
    id          int8        PRIMARY KEY GENERATED ALWAYS AS IDENTITY,
    shard       int2        NOT NULL REFERENCES shards (shard),
    event_id    uuid,
    kind        text        NOT NULL,
    detail      text        NOT NULL,
    raised_at   timestamptz NOT NULL DEFAULT now(),
    resolved_at timestamptz
);

-- The same open alarm is one row.
CREATE UNIQUE INDEX alarms_open ON alarms (shard, kind, md5(detail)) WHERE resolved_at IS NULL;

-- One row for each run of the audit: what was compared, and what was found.
CREATE TABLE reconciliations (
    id           int8        PRIMARY KEY GENERATED ALWAYS AS IDENTITY,
    started_at   timestamptz NOT NULL,
    duration_ms  int8        NOT NULL,
    -- Decisions that Redis had made and PostgreSQL had not, over all shards, when the run began.
    lag          int8        NOT NULL,
    -- Ticket types compared at equal positions, and those whose shard moved on during all tries.
    compared     int4        NOT NULL,
    not_compared int4        NOT NULL,
    -- The sum of all differences found.
    drift        int8        NOT NULL,
    ok           boolean     NOT NULL,
    -- For each shard its positions in Redis and in PostgreSQL.
    positions    jsonb       NOT NULL
);

CREATE INDEX reconciliations_newest ON reconciliations (started_at DESC);

-- What a run found wrong.
CREATE TABLE reconciliation_findings (
    reconciliation_id int8 NOT NULL REFERENCES reconciliations (id) ON DELETE CASCADE,
    shard             int2 NOT NULL,
    event_id          uuid,
    ticket_type_id    uuid,
    kind              text NOT NULL,
    detail            text NOT NULL
);

CREATE INDEX reconciliation_findings_of_event ON reconciliation_findings (event_id, reconciliation_id DESC);
