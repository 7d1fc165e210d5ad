-- Erased users.
--
-- A step of an erasure is a transaction of its own (`chat_erase`), which locks the room as a batch of writes
-- does. Words of a message that is erased are not taken out of `message_search` but replaced by none: who
-- indexed the message at the same time has an entry of the same `changed_seq`, and loses.

-- Whom nobody is again: a keyed hash of the user's id, which tells nothing without the key of `meta`.
CREATE TABLE erased_users (
    mark      bytea PRIMARY KEY CHECK (octet_length(mark) = 16),
    erased_at bigint NOT NULL
);

-- Erasures that are not done. The rooms left are those with a row of the user in `room_participants`.
CREATE TABLE erasures (
    user_id      uuid PRIMARY KEY,
    requested_at bigint NOT NULL,
    -- Until then somebody works on it.
    lease_until  bigint NOT NULL DEFAULT 0
);

-- While its user is erased: the room's events up to this one are looked through.
ALTER TABLE room_participants ADD COLUMN erased_seq bigint;

-- The rooms that a user was in.
CREATE INDEX room_participants_of_former ON room_participants (user_id, room_id)
    WHERE left_seq IS NOT NULL;

-- The event of a system message without a user: their id is the other one, their name is empty.
CREATE FUNCTION chat_event_without(_event jsonb, _user uuid, _as uuid) RETURNS jsonb
LANGUAGE plpgsql IMMUTABLE AS $$
DECLARE
    _left jsonb;
BEGIN
    IF _event->>'type' = 'user.erased' AND _event->>'user_id' = _user::text THEN
        RETURN _event;
    END IF;
    -- An id is 36 characters that nobody writes into a title by chance.
    _left := CASE WHEN _event->>'type' = 'room.updated'
        THEN _event || jsonb_build_object('actor_id', _as)
        ELSE replace(_event::text, _user::text, _as::text)::jsonb END;
    IF _left ? 'name' AND _left->>'user_id' = _as::text THEN
        _left := _left || '{"name": ""}';
    END IF;
    IF _left->>'type' = 'room.created' THEN
        _left := jsonb_set(_left, '{room,title}', coalesce(_event#>'{room,title}', 'null'));
        _left := jsonb_set(_left, '{room,members}', coalesce((
            SELECT jsonb_agg(CASE WHEN m.member->>'user_id' = _as::text
                THEN m.member || '{"name": ""}' ELSE m.member END ORDER BY m.n)
            FROM jsonb_array_elements(_left#>'{room,members}') WITH ORDINALITY AS m (member, n)), '[]'));
    END IF;
    RETURN _left;
END $$;

-- Takes an account away for good. Whoever makes it known or a member at the same time waits, or is waited for.
CREATE FUNCTION chat_erase_begin(_clock bigint, _user uuid, _mark bytea) RETURNS void
LANGUAGE plpgsql VOLATILE AS $$
DECLARE
    _now bigint := chat_now(_clock);
BEGIN
    INSERT INTO erased_users (mark, erased_at) VALUES (_mark, _now) ON CONFLICT DO NOTHING;
    -- The second time only if somebody made the account known while it was taken away.
    IF NOT FOUND AND NOT EXISTS (SELECT FROM chat_users u WHERE u.user_id = _user) THEN
        RETURN;
    END IF;
    INSERT INTO erasures (user_id, requested_at) VALUES (_user, _now) ON CONFLICT DO NOTHING;
    PERFORM FROM chat_users u WHERE u.user_id = _user OR u.user_id IN
        (SELECT x.user_id FROM user_relationships x WHERE x.other_id = _user)
    ORDER BY u.user_id FOR UPDATE;
    -- Who blocked them has one block less.
    UPDATE chat_users u SET version = u.version + 1, block_version = u.block_version + 1
    WHERE u.user_id IN (SELECT x.user_id FROM user_relationships x WHERE x.other_id = _user);
    DELETE FROM user_relationships x WHERE x.user_id = _user;
    DELETE FROM user_relationships x WHERE x.other_id = _user;
    DELETE FROM chat_users u WHERE u.user_id = _user;
END $$;

-- Erases a user from a room: the next `_stretch` events, or what is left with the event. Whether that was
-- all, and the event, if it was made. `_told_as`: the time of `_requested` as the event has it.
CREATE FUNCTION chat_erase(
    _clock bigint, _room uuid, _user uuid, _as uuid, _requested bigint, _told_as text, _stretch bigint,
    _told_max integer
) RETURNS TABLE (done boolean, seq bigint, ts bigint, event text)
LANGUAGE plpgsql VOLATILE AS $$
#variable_conflict use_column
DECLARE
    _head chat_rooms;
    _own room_participants;
    _now bigint;
    _from bigint;
    _to bigint;
    _erased bigint[];
    _seq bigint;
    _heir uuid;
    _left jsonb;
    _event jsonb;
BEGIN
    SELECT * INTO _head FROM chat_rooms r WHERE r.room_id = _room AND r.last_seq > 0 FOR NO KEY UPDATE;
    SELECT * INTO _own FROM room_participants p WHERE p.room_id = _room AND p.user_id = _user;
    done := _head.room_id IS NULL OR _own.user_id IS NULL;
    IF done THEN
        RETURN NEXT;
        RETURN;
    END IF;
    _now := chat_now(_clock);
    _from := coalesce(_own.erased_seq, 0);
    _to := least(_head.last_seq, _from + _stretch);

    WITH erased AS (
        UPDATE messages m SET sender_id = _as, text = NULL, mentions = NULL, reactions = NULL,
            deleted_at = coalesce(m.deleted_at, _requested)
        WHERE m.room_id = _room AND m.seq > _from AND m.seq <= _to AND m.sender_id = _user
            AND m.kind <> 'system'
        RETURNING m.seq, m.created_at, m.changed_seq
    )
    SELECT coalesce(array_agg(e.seq ORDER BY e.seq), '{}') INTO _erased FROM erased e;
    IF cardinality(_erased) > 0 THEN
        DELETE FROM message_reactions x WHERE x.room_id = _room AND x.message_seq = ANY (_erased);
        DELETE FROM room_pins x WHERE x.room_id = _room AND x.message_seq = ANY (_erased);
        INSERT INTO message_search AS s (room_id, seq, place, sender_id, changed_seq, document)
        SELECT _room, m.seq, 0, _as, m.changed_seq, ''::tsvector
        FROM messages m WHERE m.room_id = _room AND m.seq = ANY (_erased) ORDER BY m.seq
        ON CONFLICT (room_id, seq) DO UPDATE SET document = excluded.document,
            sender_id = excluded.sender_id, changed_seq = greatest(s.changed_seq, excluded.changed_seq);
    END IF;
    UPDATE messages m SET event = chat_event_without(m.event, _user, _as),
        sender_id = CASE WHEN m.sender_id = _user THEN _as ELSE m.sender_id END
    WHERE m.room_id = _room AND m.seq > _from AND m.seq <= _to AND m.kind = 'system'
        AND (m.sender_id = _user OR strpos(m.event::text, _user::text) > 0);
    UPDATE messages m SET mentions = nullif(m.mentions - _user::text, '[]')
    WHERE m.room_id = _room AND m.seq > _from AND m.seq <= _to AND m.mentions ? _user::text;
    UPDATE room_events e SET actor_id = _as
    WHERE e.room_id = _room AND e.seq > _from AND e.seq <= _to AND e.actor_id = _user;

    done := _to = _head.last_seq;
    IF NOT done THEN
        UPDATE room_participants p SET erased_seq = _to WHERE p.room_id = _room AND p.user_id = _user;
        RETURN NEXT;
        RETURN;
    END IF;

    _seq := _head.last_seq + 1;
    WITH gone AS MATERIALIZED (
        DELETE FROM message_reactions x WHERE x.room_id = _room AND x.user_id = _user
        RETURNING x.message_seq, x.emoji
    ), counted AS MATERIALIZED (
        SELECT g.message_seq, g.emoji, greatest((m.reactions->>g.emoji)::integer - 1, 0) AS count
        FROM gone g JOIN messages m ON m.room_id = _room AND m.seq = g.message_seq
    ), written AS (
        UPDATE messages m SET changed_seq = _seq,
            reactions = nullif((m.reactions - c.emojis) || c.counts, '{}')
        FROM (SELECT message_seq, array_agg(emoji) AS emojis,
                coalesce(jsonb_object_agg(emoji, count) FILTER (WHERE count > 0), '{}') AS counts
            FROM counted GROUP BY message_seq) c
        WHERE m.room_id = _room AND m.seq = c.message_seq
    )
    SELECT jsonb_build_object(
        'reactions', coalesce(jsonb_agg(jsonb_build_object('message_seq', c.message_seq, 'emoji', c.emoji,
            'count', c.count) ORDER BY c.n) FILTER (WHERE c.n <= _told_max), '[]'),
        'reactions_more', count(*) > _told_max)
    INTO _left
    FROM (SELECT k.*, row_number() OVER (ORDER BY k.message_seq DESC, k.emoji COLLATE "C") AS n
        FROM counted k) c;

    DELETE FROM room_participants p WHERE p.room_id = _room AND p.user_id = _user;
    DELETE FROM message_read_status s WHERE s.room_id = _room AND s.user_id = _user;
    UPDATE room_pins x SET pinned_by = _as WHERE x.room_id = _room AND x.pinned_by = _user;
    UPDATE message_reports x SET reporter_id = _as WHERE x.room_id = _room AND x.reporter_id = _user;
    DELETE FROM typing_indicators x WHERE x.room_id = _room AND x.user_id = _user;
    IF _own.left_seq IS NULL AND _own.role = 'owner' THEN
        SELECT p.user_id INTO _heir FROM room_participants p
        WHERE p.room_id = _room AND p.left_seq IS NULL
        ORDER BY p.role = 'admin' DESC, p.joined_seq, p.user_id LIMIT 1;
        UPDATE room_participants p SET role = 'owner' WHERE p.room_id = _room AND p.user_id = _heir;
    END IF;
    UPDATE chat_rooms r SET
        member_count = r.member_count - CASE WHEN _own.left_seq IS NULL THEN 1 ELSE 0 END,
        created_by = CASE WHEN r.created_by = _user THEN _as ELSE r.created_by END,
        -- Nobody is there to read what the other one would write.
        severed = r.severed OR r.kind = 'direct'
    WHERE r.room_id = _room;
    _event := jsonb_build_object('type', 'user.erased', 'user_id', _user, 'erased_as', _as,
        'deleted_at', _told_as) || _left
        || CASE WHEN _heir IS NULL THEN '{}' ELSE jsonb_build_object('owner_id', _heir) END;
    SELECT s.seq, s.ts INTO seq, ts FROM chat_system(_now, _room, _as, _event) s;
    event := _event::text;
    RETURN NEXT;
END $$;
