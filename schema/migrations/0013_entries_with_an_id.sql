-- An entry that waits for PostgreSQL is written by whoever did the action, with the time of the action, again and again until it is
-- known to be there. By an id of its own it is one row all the same. Null where an older version wrote it.
ALTER TABLE operator_actions ADD COLUMN entry_id uuid UNIQUE;

-- As before; the id stays, too.
CREATE OR REPLACE FUNCTION keep_operator_actions() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF TG_OP = 'UPDATE' AND OLD.outcome IS NULL
        AND (NEW.id, NEW.at, NEW.who, NEW.action, NEW.target, NEW.request_id)
            = (OLD.id, OLD.at, OLD.who, OLD.action, OLD.target, OLD.request_id)
        AND (NEW.entry_id, NEW.before) IS NOT DISTINCT FROM (OLD.entry_id, OLD.before)
    THEN
        RETURN NEW;
    END IF;
    RAISE EXCEPTION 'operator_actions is only added to';
END
$$;
