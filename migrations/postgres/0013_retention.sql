-- Retention: messages are dropped room by room when they are older than the room keeps them.
--
-- A step of it is a transaction of its own (`chat_retain`), which locks the room as a batch of writes does.
-- A send writes none of these columns: its rows' indexes stay untouched.

ALTER TABLE chat_rooms
    -- Events up to this one are dropped: of persons' messages tombstones are left, without which a send that
    -- is retried would be a new one; of the rest nothing but the room's first event and its newest.
    ADD COLUMN floor_seq bigint NOT NULL DEFAULT 0,
    -- For how many days messages are kept; NULL: as the program is told for all rooms; 0: for ever.
    ADD COLUMN retention_days integer CHECK (retention_days >= 0),
    -- No event above the floor is older than that; NULL: nothing was dropped yet, so none is older than the
    -- room.
    ADD COLUMN oldest_at bigint;

-- The rooms that have something to drop, by what they have longest.
CREATE INDEX chat_rooms_by_age ON chat_rooms ((coalesce(oldest_at, created_at)))
    WHERE retention_days IS NULL;
CREATE INDEX chat_rooms_by_own_age
    ON chat_rooms ((coalesce(oldest_at, created_at) + retention_days * 86400000::bigint))
    WHERE retention_days > 0;

-- Until then a node drops.
CREATE TABLE retention_lease (
    one         smallint PRIMARY KEY CHECK (one = 1),
    lease_until bigint NOT NULL
);
INSERT INTO retention_lease (one, lease_until) VALUES (1, 0);

-- Rooms with messages that are older than they are kept, and by `_slack` at that, those first that have theirs
-- the longest; at most `_max` of those with the age of all (`_days`), and of those with one of their own. One
-- row without a room: there is none. No row: another node drops.
CREATE FUNCTION chat_retain_next(
    _clock bigint, _held boolean, _lease bigint, _days bigint, _slack bigint, _max integer
) RETURNS TABLE (room_id uuid)
LANGUAGE plpgsql VOLATILE AS $$
#variable_conflict use_column
DECLARE
    _now bigint := chat_now(_clock);
BEGIN
    UPDATE retention_lease l SET lease_until = _now + _lease WHERE _held OR l.lease_until <= _now;
    IF NOT FOUND THEN
        RETURN;
    END IF;
    RETURN QUERY SELECT r.room_id FROM chat_rooms r
        WHERE r.retention_days > 0 AND r.last_seq > 0
            AND coalesce(r.oldest_at, r.created_at) + r.retention_days * 86400000::bigint < _now - _slack
        ORDER BY coalesce(r.oldest_at, r.created_at) + r.retention_days * 86400000::bigint LIMIT _max;
    IF _days > 0 THEN
        RETURN QUERY SELECT r.room_id FROM chat_rooms r
            WHERE r.retention_days IS NULL AND r.last_seq > 0
                AND coalesce(r.oldest_at, r.created_at) < _now - _slack - _days * 86400000
            ORDER BY coalesce(r.oldest_at, r.created_at) LIMIT _max;
    END IF;
    RETURN QUERY SELECT NULL::uuid;
END $$;

-- Drops the next `_stretch` events of a room, as far as they are older than it keeps them (`_days`: unless it
-- has an age of its own); whether that was all.
CREATE FUNCTION chat_retain(_clock bigint, _room uuid, _days bigint, _stretch bigint, _lease bigint)
RETURNS boolean
LANGUAGE plpgsql VOLATILE AS $$
#variable_conflict use_column
DECLARE
    _head chat_rooms;
    _now bigint;
    _kept bigint;
    _from bigint;
    _top bigint;
    _to bigint;
    _oldest bigint;
    _done boolean;
BEGIN
    SELECT * INTO _head FROM chat_rooms r WHERE r.room_id = _room AND r.last_seq > 0 FOR NO KEY UPDATE;
    _kept := coalesce(_head.retention_days, _days);
    IF _head.room_id IS NULL OR _kept <= 0 THEN
        RETURN true;
    END IF;
    _now := chat_now(_clock);
    _from := _head.floor_seq;
    _top := least(_head.last_seq, _from + _stretch);
    -- Time never decreases from an event of a room to the next.
    SELECT coalesce(max(o.seq), _from) INTO _to FROM (
        SELECT m.seq FROM messages m WHERE m.room_id = _room AND m.seq > _from AND m.seq <= _top
            AND m.created_at < _now - _kept * 86400000
        UNION ALL
        SELECT e.seq FROM room_events e WHERE e.room_id = _room AND e.seq > _from AND e.seq <= _top
            AND e.ts < _now - _kept * 86400000) o;
    _done := _to < _top OR _to = _head.last_seq;
    IF _to > _from THEN
        UPDATE messages m SET text = NULL, mentions = NULL, reactions = NULL, deleted_at = _now
        WHERE m.room_id = _room AND m.seq > _from AND m.seq <= _to AND m.kind <> 'system'
            AND m.deleted_at IS NULL;
        -- The newest of the last time may be here still, though it is the newest no longer.
        DELETE FROM messages m WHERE m.room_id = _room AND m.seq >= _from AND m.seq <= _to
            AND m.kind = 'system' AND m.seq > 1 AND m.seq < _head.last_seq;
        DELETE FROM room_events e WHERE e.room_id = _room AND e.seq >= _from AND e.seq <= _to
            AND e.seq < _head.last_seq;
        DELETE FROM message_reactions x WHERE x.room_id = _room AND x.message_seq > _from
            AND x.message_seq <= _to;
        DELETE FROM room_pins x WHERE x.room_id = _room AND x.message_seq <= _to;
        -- Who indexed one of these at the same time writes an entry after: the last step finds it the next time.
        DELETE FROM message_search s WHERE s.room_id = _room AND s.seq <= _to
            AND (_done OR s.seq > _from);
    END IF;
    IF _done THEN
        SELECT least(
            (SELECT m.created_at FROM messages m WHERE m.room_id = _room AND m.seq = _to + 1),
            (SELECT e.ts FROM room_events e WHERE e.room_id = _room AND e.seq = _to + 1)) INTO _oldest;
        -- Without any: what comes next is not older than now.
        _oldest := coalesce(_oldest, _now);
    ELSE
        _oldest := _head.oldest_at;
    END IF;
    UPDATE chat_rooms r SET floor_seq = _to, oldest_at = _oldest
    WHERE r.room_id = _room AND (r.floor_seq <> _to OR r.oldest_at IS DISTINCT FROM _oldest);
    UPDATE retention_lease l SET lease_until = greatest(l.lease_until, _now + _lease);
    RETURN _done;
END $$;

-- For how many days a room keeps its messages; NULL: as all rooms do. Whether it was otherwise; NULL: there is no
-- such room, and nothing is noted.
CREATE FUNCTION admin_retention(_clock bigint, _room uuid, _days integer, _act jsonb) RETURNS boolean
LANGUAGE plpgsql VOLATILE AS $$
DECLARE
    _old chat_rooms;
    _changes boolean;
BEGIN
    SELECT * INTO _old FROM chat_rooms r WHERE r.room_id = _room AND r.last_seq > 0 FOR NO KEY UPDATE;
    IF _old.room_id IS NULL THEN
        RETURN NULL;
    END IF;
    _changes := _old.retention_days IS DISTINCT FROM _days;
    IF admin_note(chat_now(_clock), _act, CASE WHEN _changes THEN 'done' ELSE 'unchanged' END) AND _changes THEN
        UPDATE chat_rooms r SET retention_days = _days WHERE r.room_id = _room;
        RETURN true;
    END IF;
    RETURN false;
END $$;
