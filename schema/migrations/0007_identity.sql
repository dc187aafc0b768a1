-- Who may do what, and who did what.

-- How callers are authenticated is fixed by the first API that starts, since it decides what scopes idempotency keys:
-- switched in the middle of a sale, a retry would be another booking. The version counts changes of `api_keys`, so that
-- an API need not read them all to see that nothing changed.
ALTER TABLE installation
    ADD COLUMN authentication text CHECK (authentication IN ('off', 'keys', 'keys+jwt')),
    ADD COLUMN keys_version   int8 NOT NULL DEFAULT 0;

-- API keys. The key itself is nowhere: only its SHA-256, which suffices for 256 random bits.
CREATE TABLE api_keys (
    -- The visible part of the key.
    id          text        PRIMARY KEY CHECK (id ~ '^[0-9a-f]{16}$'),
    name        text        NOT NULL CHECK (length(name) BETWEEN 1 AND 100),
    -- Whose idempotency keys and bookings it reaches; null for whoever operates the installation.
    storefront  text        CHECK (storefront ~ '^[a-z0-9][a-z0-9-]{0,62}$'),
    scopes      text[]      NOT NULL CHECK (scopes <@ ARRAY ['events:write', 'bookings:write', 'bookings:read',
                                                            'audit:read', 'keys:write', 'limits:check']),
    digest      bytea       NOT NULL CHECK (octet_length(digest) = 32),
    created_at  timestamptz NOT NULL DEFAULT now(),
    expires_at  timestamptz NOT NULL,
    revoked_at  timestamptz,
    -- The key that a rotation made in its place.
    replaced_by text        REFERENCES api_keys (id),
    -- A storefront's key operates nothing, whatever was typed when it was made.
    CHECK (storefront IS NULL OR scopes <@ ARRAY ['bookings:write', 'bookings:read', 'limits:check'])
);

-- What operators did through the API and to its keys. A row is written in the transaction of the action; where Redis
-- decides, before it is asked, and ended afterwards.
CREATE TABLE operator_actions (
    id         int8        PRIMARY KEY GENERATED ALWAYS AS IDENTITY,
    at         timestamptz NOT NULL DEFAULT now(),
    who        text        NOT NULL,
    action     text        NOT NULL,
    -- The event or the key.
    target     text        NOT NULL,
    before     jsonb,
    after      jsonb,
    request_id text        NOT NULL,
    -- `refused`: nothing was changed. Null while it is not known, or for ever where the process was killed meanwhile:
    -- then the log of decisions tells.
    outcome    text        CHECK (outcome IN ('done', 'refused', 'unknown')),
    ended_at   timestamptz,
    CHECK ((outcome IS NULL) = (ended_at IS NULL))
);

CREATE INDEX operator_actions_of_target ON operator_actions (target, id DESC);

-- An entry is ended once and otherwise stays as it was written.
CREATE FUNCTION keep_operator_actions() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF TG_OP = 'UPDATE' AND OLD.outcome IS NULL
        AND (NEW.id, NEW.at, NEW.who, NEW.action, NEW.target, NEW.request_id)
            = (OLD.id, OLD.at, OLD.who, OLD.action, OLD.target, OLD.request_id)
        AND NEW.before IS NOT DISTINCT FROM OLD.before
    THEN
        RETURN NEW;
    END IF;
    RAISE EXCEPTION 'operator_actions is only added to';
END
$$;

CREATE TRIGGER operator_actions_stay BEFORE UPDATE OR DELETE ON operator_actions
    FOR EACH ROW EXECUTE FUNCTION keep_operator_actions();
CREATE TRIGGER operator_actions_stay_whole BEFORE TRUNCATE ON operator_actions
    FOR EACH STATEMENT EXECUTE FUNCTION keep_operator_actions();

-- Everything that was done by hand, here and by the reconciler's commands.
CREATE VIEW audit_log AS
SELECT at, who, action, target, before, after, request_id, coalesce(outcome, 'unknown') AS outcome
FROM operator_actions
UNION ALL
SELECT asked_at, asked_by, 'repair.' || kind, coalesce('event ' || event_id, 'shard ' || shard),
       to_jsonb(before), to_jsonb(after), 'repair-' || id, coalesce(outcome, 'unknown')
FROM repairs;
