-- What the rate limits decided, by minute: how often each subject of a policy was allowed and refused. Statistics, from
-- a topic of their own; nothing is decided by them. Rows older than a day are removed.
CREATE TABLE rate_limit_minutes (
    minute              timestamptz NOT NULL,
    policy              text        NOT NULL,
    -- Who was counted; empty for all those whom the API did not tell apart in a second with too many of them.
    key                 text        NOT NULL,
    allowed             int8        NOT NULL CHECK (allowed >= 0),
    -- Refused by Redis.
    refused             int8        NOT NULL CHECK (refused >= 0),
    -- Refused without asking Redis.
    refused_from_memory int8        NOT NULL CHECK (refused_from_memory >= 0),
    PRIMARY KEY (minute, policy, key)
);

-- Where reading goes on. It moves in the transaction that adds what was read, so that nothing is added twice.
CREATE TABLE rate_limit_progress (
    partition   int4 PRIMARY KEY,
    next_offset int8 NOT NULL
);
INSERT INTO rate_limit_progress (partition, next_offset) VALUES (0, 0);
