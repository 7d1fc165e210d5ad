-- Watermarks of two of whom one blocks the other, as both are told in their direct room: those of when it was severed.
-- NULL: as they are. Otherwise the one would see that the other still reads.
ALTER TABLE message_read_status ADD COLUMN shown_read_seq bigint;
ALTER TABLE message_read_status ADD COLUMN shown_delivered_seq bigint;

-- Of rooms that were severed before: as of now.
UPDATE message_read_status s SET shown_read_seq = s.read_seq, shown_delivered_seq = s.delivered_seq
FROM chat_rooms r WHERE r.severed AND s.room_id = r.room_id;

-- As in 0002; with the watermarks that are told.
CREATE OR REPLACE FUNCTION chat_room_view(_room uuid, _shown_max bigint) RETURNS text
LANGUAGE sql STABLE AS $$
    SELECT json_build_object(
        'kind', r.kind, 'title', r.title, 'created_at', r.created_at, 'last_seq', r.last_seq,
        'member_count', r.member_count,
        'members', coalesce((
            SELECT json_agg(json_build_object(
                'user_id', p.user_id, 'name', u.name, 'role', p.role,
                'read_seq', coalesce(s.shown_read_seq, s.read_seq, 0),
                'delivered_seq', coalesce(s.shown_delivered_seq, s.delivered_seq, 0)
            ) ORDER BY p.joined_seq, p.user_id)
            FROM (
                SELECT q.room_id, q.user_id, q.role, q.joined_seq FROM room_participants q
                WHERE q.room_id = _room AND q.left_seq IS NULL
                ORDER BY q.joined_seq, q.user_id LIMIT _shown_max
            ) p
            JOIN chat_users u ON u.user_id = p.user_id
            LEFT JOIN message_read_status s ON s.room_id = p.room_id AND s.user_id = p.user_id
        ), '[]'))::text
    FROM chat_rooms r WHERE r.room_id = _room AND r.last_seq > 0
$$;

-- As in 0005; with the watermarks that are told from now on. The room's lock is held, so no send advances them;
-- receipts pass over rows that are locked, and come again.
CREATE OR REPLACE FUNCTION chat_block(
    _now bigint, _room uuid, _actor uuid, _user uuid, _blocks boolean, _max integer
) RETURNS TABLE (outcome integer, seq bigint, ts bigint, event text)
LANGUAGE plpgsql VOLATILE AS $$
#variable_conflict use_column
DECLARE
    _changed boolean;
    _severed boolean;
BEGIN
    IF NOT EXISTS (SELECT FROM chat_users u WHERE u.user_id = _user)
        OR NOT EXISTS (SELECT FROM chat_users u WHERE u.user_id = _actor)
    THEN
        outcome := 12;
    ELSIF _blocks AND (SELECT count(*) FROM user_relationships x
        WHERE x.user_id = _actor AND x.kind = 'block' AND x.other_id <> _user) >= _max
    THEN
        outcome := 28;
    END IF;
    IF outcome IS NOT NULL THEN
        RETURN NEXT;
        RETURN;
    END IF;
    IF _blocks THEN
        INSERT INTO user_relationships (user_id, other_id, kind, created_at)
        VALUES (_actor, _user, 'block', _now) ON CONFLICT DO NOTHING;
    ELSE
        DELETE FROM user_relationships x
        WHERE x.user_id = _actor AND x.other_id = _user AND x.kind = 'block';
    END IF;
    _changed := FOUND;
    _severed := chat_severed(_actor, ARRAY[_user]);
    IF _changed THEN
        UPDATE chat_users u SET version = u.version + 1,
            block_version = u.block_version + CASE WHEN u.user_id = _actor THEN 1 ELSE 0 END
        WHERE u.user_id IN (_actor, _user);
        UPDATE chat_rooms r SET severed = _severed
        WHERE r.room_id = _room AND r.last_seq > 0 AND r.severed <> _severed;
        IF FOUND THEN
            UPDATE message_read_status s
            SET shown_read_seq = CASE WHEN _severed THEN s.read_seq END,
                shown_delivered_seq = CASE WHEN _severed THEN s.delivered_seq END
            WHERE s.room_id = _room;
        END IF;
    END IF;
    outcome := 27;
    event := jsonb_build_object('changed', _changed, 'severed', _severed, 'block_version',
        (SELECT u.block_version FROM chat_users u WHERE u.user_id = _actor))::text;
    RETURN NEXT;
END $$;
