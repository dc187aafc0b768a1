-- That bookings belong to events, and items to bookings and ticket types, is checked once a statement and no longer once a
-- row. The reconciler adds a thousand rows at a time, and three foreign keys were half of what PostgreSQL did for each
-- (docs/adr/0024). What is refused is the same, and an item whose ticket type is another event's besides.

-- A reconciler at work takes rows of this table first, and what is locked below in an order of its own.
LOCK TABLE shards IN EXCLUSIVE MODE;
ALTER TABLE bookings DROP CONSTRAINT bookings_event_id_fkey;
ALTER TABLE booking_items
    DROP CONSTRAINT booking_items_booking_id_fkey,
    DROP CONSTRAINT booking_items_ticket_type_id_fkey;

-- Every item needs its booking, and a ticket type of that booking's event; a ticket type has its event by a foreign key, and
-- a booking has items. All three are looked up by their keys: what the planner believes of a table that is just being
-- filled would have it read all of it.
CREATE FUNCTION items_belong() RETURNS trigger LANGUAGE plpgsql
SET search_path FROM CURRENT SET enable_seqscan = off SET enable_hashjoin = off SET enable_mergejoin = off AS $$
DECLARE
    stray record;
BEGIN
    SELECT added.booking_id, added.ticket_type_id INTO stray
    FROM added
    LEFT JOIN bookings ON bookings.id = added.booking_id
    LEFT JOIN ticket_types
           ON ticket_types.id = added.ticket_type_id AND ticket_types.event_id = bookings.event_id
    WHERE ticket_types.id IS NULL
    LIMIT 1;
    IF FOUND THEN
        RAISE foreign_key_violation USING
            MESSAGE = format('an item of booking %s is of ticket type %s: there is no such booking, or its event has no '
                             'such ticket type', stray.booking_id, stray.ticket_type_id),
            TABLE = 'booking_items', CONSTRAINT = 'items_belong';
    END IF;
    RETURN NULL;
END
$$;

CREATE TRIGGER items_belong AFTER INSERT ON booking_items
    REFERENCING NEW TABLE AS added FOR EACH STATEMENT EXECUTE FUNCTION items_belong();
CREATE TRIGGER items_still_belong AFTER UPDATE ON booking_items
    REFERENCING NEW TABLE AS added FOR EACH STATEMENT EXECUTE FUNCTION items_belong();

-- No booking and no ticket type goes before the items that name it. Whoever adds items meanwhile waits, and then finds out.
-- In a transaction whose snapshot is older than the lock, items could be overlooked.
CREATE FUNCTION items_are_kept() RETURNS trigger LANGUAGE plpgsql SET search_path FROM CURRENT AS $$
DECLARE
    left_behind uuid;
BEGIN
    IF current_setting('transaction_isolation') <> 'read committed' THEN
        RAISE invalid_transaction_state USING
            MESSAGE = format('rows of %s are removed in READ COMMITTED only', TG_TABLE_NAME);
    END IF;
    LOCK TABLE booking_items IN SHARE ROW EXCLUSIVE MODE;
    IF TG_OP = 'TRUNCATE' THEN
        SELECT booking_id INTO left_behind FROM booking_items LIMIT 1;
    ELSIF TG_TABLE_NAME = 'bookings' THEN
        SELECT booking_id INTO left_behind
        FROM booking_items WHERE booking_id IN (SELECT id FROM removed) LIMIT 1;
    ELSE
        SELECT booking_id INTO left_behind
        FROM booking_items WHERE ticket_type_id IN (SELECT id FROM removed) LIMIT 1;
    END IF;
    IF FOUND THEN
        RAISE foreign_key_violation USING
            MESSAGE = format('booking %s has items of what was to be removed from %s: remove those first', left_behind,
                             TG_TABLE_NAME),
            TABLE = 'booking_items', CONSTRAINT = 'items_are_kept';
    END IF;
    RETURN NULL;
END
$$;

CREATE TRIGGER items_are_kept AFTER DELETE ON bookings
    REFERENCING OLD TABLE AS removed FOR EACH STATEMENT EXECUTE FUNCTION items_are_kept();
CREATE TRIGGER items_are_kept AFTER DELETE ON ticket_types
    REFERENCING OLD TABLE AS removed FOR EACH STATEMENT EXECUTE FUNCTION items_are_kept();
CREATE TRIGGER items_are_kept_whole AFTER TRUNCATE ON bookings
    FOR EACH STATEMENT EXECUTE FUNCTION items_are_kept();
CREATE TRIGGER items_are_kept_whole AFTER TRUNCATE ON ticket_types
    FOR EACH STATEMENT EXECUTE FUNCTION items_are_kept();

-- What items name keeps its name. A statement that sets none of these columns does not come here.
CREATE FUNCTION names_stay() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    RAISE restrict_violation USING
        MESSAGE = format('ids of %s never change: items name them', TG_TABLE_NAME), TABLE = TG_TABLE_NAME;
END
$$;

CREATE TRIGGER names_stay BEFORE UPDATE OF id, event_id ON bookings FOR EACH ROW EXECUTE FUNCTION names_stay();
CREATE TRIGGER names_stay BEFORE UPDATE OF id, event_id ON ticket_types FOR EACH ROW EXECUTE FUNCTION names_stay();
