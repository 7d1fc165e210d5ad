-- Retention: messages are dropped room by room when they are older than the room keeps them.
--
-- A step of it is a transaction of its own (`chat_retain`), which locks the room as a batch of writes does.
-- A send writes none of these columns: its rows' indexes stay untouched.
--
-- Further outcome:
--   30 the message that is answered was dropped

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
    _rooms uuid[];
BEGIN
    _rooms := ARRAY(SELECT r.room_id FROM chat_rooms r
        WHERE r.retention_days > 0 AND r.last_seq > 0
            AND coalesce(r.oldest_at, r.created_at) + r.retention_days * 86400000::bigint < _now - _slack
        ORDER BY coalesce(r.oldest_at, r.created_at) + r.retention_days * 86400000::bigint LIMIT _max);
    IF _days > 0 THEN
        _rooms := _rooms || ARRAY(SELECT r.room_id FROM chat_rooms r
            WHERE r.retention_days IS NULL AND r.last_seq > 0
                AND coalesce(r.oldest_at, r.created_at) < _now - _slack - _days * 86400000
            ORDER BY coalesce(r.oldest_at, r.created_at) LIMIT _max);
    END IF;
    -- Where there is nothing to drop nothing is written.
    IF cardinality(_rooms) > 0 THEN
        UPDATE retention_lease l SET lease_until = _now + _lease WHERE _held OR l.lease_until <= _now;
        IF NOT FOUND THEN
            RETURN;
        END IF;
    END IF;
    RETURN QUERY SELECT a.room_id FROM unnest(_rooms) AS a (room_id);
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
        UPDATE uploads u SET state = 'removed', remove_at = _now
        WHERE u.state = 'used' AND u.upload_id IN (SELECT (f.file->>'upload_id')::uuid
            FROM messages m, jsonb_array_elements(m.attachments->'files') AS f (file)
            WHERE m.room_id = _room AND m.seq > _from AND m.seq <= _to AND m.attachments IS NOT NULL);
        UPDATE messages m SET text = NULL, mentions = NULL, reactions = NULL, deleted_at = _now,
            attachments = jsonb_set(m.attachments, '{files}', '[]')
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

-- As in 0005; beside it, what answers a dropped message is told so. That is looked up only for a batch that answers
-- something.
CREATE OR REPLACE FUNCTION chat_commit(
    _careful boolean, _clock bigint, _kinds integer[], _run_ends integer[], _rooms uuid[],
    _actors uuid[], _ids uuid[], _hashes bytea[], _replies bigint[], _texts text[],
    _user_ends integer[], _users uuid[], _locked_users uuid[], _members_max integer,
    _rooms_max integer, _shown_max integer
) RETURNS TABLE (ix integer, outcome integer, seq bigint, ts bigint, event text)
LANGUAGE plpgsql VOLATILE AS $$
#variable_conflict use_column
DECLARE
    _count integer := cardinality(_kinds);
    _creates boolean := _kinds && '{1,2,5,6,11,12}'::integer[];
    _answers boolean := cardinality(array_remove(_replies, NULL)) > 0;
    _now bigint;
    _at integer := 1;
    _end integer;
    _cut integer;
    _named uuid[];
    _room record;
    _drops boolean := false;
BEGIN
    IF _creates THEN
        -- A room that is not there yet has no row to lock, so its row is made in its turn. Who makes
        -- the same one at the same time waits here.
        FOR _room IN
            SELECT a.room_id, bool_or(a.kind IN (1, 2, 5, 6, 11, 12)) AS created
            FROM unnest(_rooms, _kinds) AS a (room_id, kind) GROUP BY a.room_id ORDER BY a.room_id
        LOOP
            IF _room.created THEN
                INSERT INTO chat_rooms (room_id, kind, created_by, created_at, member_count,
                    last_seq, last_ts, body_hash)
                VALUES (_room.room_id, 'group', _room.room_id, 0, 0, 0, 0, decode(repeat('00', 16), 'hex'))
                ON CONFLICT (room_id) DO NOTHING;
            END IF;
            PERFORM FROM chat_rooms r WHERE r.room_id = _room.room_id FOR NO KEY UPDATE;
        END LOOP;
    ELSE
        PERFORM FROM chat_rooms r WHERE r.room_id = ANY (_rooms)
        ORDER BY r.room_id FOR NO KEY UPDATE;
    END IF;
    IF cardinality(_locked_users) > 0 THEN
        PERFORM FROM chat_users u WHERE u.user_id = ANY (_locked_users)
        ORDER BY u.user_id FOR NO KEY UPDATE;
    END IF;
    -- After the locks, so that the time of a later event is not that of an earlier wait.
    _now := coalesce(_clock, floor(extract(epoch FROM clock_timestamp()) * 1000)::bigint);
    IF _answers THEN
        -- What answers a dropped message answers none here: a retry is told before that, and the rest below.
        SELECT array_agg(CASE WHEN a.reply BETWEEN 1 AND r.floor_seq THEN -1 ELSE a.reply END ORDER BY a.n),
            coalesce(bool_or(a.reply BETWEEN 1 AND r.floor_seq), false)
        INTO _replies, _drops
        FROM unnest(_rooms, _replies) WITH ORDINALITY AS a (room_id, reply, n)
        LEFT JOIN chat_rooms r ON r.room_id = a.room_id AND a.reply IS NOT NULL;
    END IF;
    WHILE _at <= _count LOOP
        IF _kinds[_at] = 0 THEN
            _end := _run_ends[_at];
            -- One that answers a message which may be among these waits until they are made.
            IF _answers THEN
                SELECT min(a.n) - 1 INTO _cut
                FROM unnest(_rooms[_at + 1:_end], _replies[_at + 1:_end])
                    WITH ORDINALITY AS a (room_id, reply, n)
                JOIN chat_rooms r ON r.room_id = a.room_id
                WHERE a.reply > r.last_seq AND a.reply <= r.last_seq + a.n;
                _end := coalesce(_at + _cut, _end);
            END IF;
            IF _drops THEN
                RETURN QUERY SELECT s.ix,
                    CASE WHEN s.outcome = 4 AND _replies[s.ix] = -1 THEN 30 ELSE s.outcome END, s.seq,
                    s.ts, s.event
                FROM chat_send(_careful, _now, _at - 1, _rooms[_at:_end], _actors[_at:_end],
                    _ids[_at:_end], _hashes[_at:_end], _replies[_at:_end], _texts[_at:_end]) s;
            ELSIF _at = 1 AND _end = _count THEN
                RETURN QUERY SELECT * FROM chat_send(_careful, _now, 0, _rooms, _actors, _ids,
                    _hashes, _replies, _texts);
            ELSE
                RETURN QUERY SELECT * FROM chat_send(_careful, _now, _at - 1, _rooms[_at:_end],
                    _actors[_at:_end], _ids[_at:_end], _hashes[_at:_end], _replies[_at:_end],
                    _texts[_at:_end]);
            END IF;
            _at := _end + 1;
        ELSE
            _named := _users[coalesce(_user_ends[_at - 1], 0) + 1:_user_ends[_at]];
            IF _kinds[_at] IN (1, 2, 5, 6) THEN
                RETURN QUERY SELECT _at, c.* FROM chat_create(_now, _rooms[_at], _actors[_at],
                    CASE WHEN _kinds[_at] IN (1, 5) THEN 'direct' ELSE 'group' END, _kinds[_at] < 5,
                    _texts[_at], _hashes[_at], _named, _members_max, _rooms_max, _shown_max) c;
            ELSIF _kinds[_at] = 3 THEN
                RETURN QUERY SELECT _at, c.* FROM chat_add(_now, _rooms[_at], _actors[_at], _named,
                    _members_max, _rooms_max) c;
            ELSIF _kinds[_at] = 7 THEN
                RETURN QUERY SELECT _at, c.* FROM chat_change(_now, _rooms[_at], _actors[_at],
                    _texts[_at]::jsonb) c;
            ELSIF _kinds[_at] = 8 THEN
                RETURN QUERY SELECT _at,
                    CASE WHEN c.outcome = 4 AND _replies[_at] = -1 THEN 30 ELSE c.outcome END, c.seq,
                    c.ts, c.event
                FROM chat_mention(_now, _rooms[_at], _actors[_at], _ids[_at], _hashes[_at], _replies[_at],
                    _texts[_at]::jsonb) c;
            ELSIF _kinds[_at] = 10 THEN
                RETURN QUERY SELECT _at, c.* FROM chat_update(_now, _rooms[_at], _actors[_at],
                    _texts[_at]::jsonb) c;
            ELSIF _kinds[_at] IN (11, 12) THEN
                RETURN QUERY SELECT _at, c.* FROM chat_block(_now, _rooms[_at], _actors[_at],
                    _named[1], _kinds[_at] = 11, _texts[_at]::integer) c;
            ELSIF _kinds[_at] = 9 THEN
                RETURN QUERY SELECT _at, c.* FROM chat_role(_now, _rooms[_at], _actors[_at], _named,
                    _texts[_at]::jsonb) c;
            ELSE
                RETURN QUERY SELECT _at, c.* FROM chat_remove(_now, _rooms[_at], _actors[_at], _named) c;
            END IF;
            _at := _at + 1;
        END IF;
    END LOOP;
    IF _creates THEN
        -- Of a room that was refused nothing is left.
        DELETE FROM chat_rooms r WHERE r.room_id = ANY (_rooms) AND r.last_seq = 0;
    END IF;
END $$;
