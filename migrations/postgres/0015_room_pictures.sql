-- Where the picture of a group is: a URL. NULL: it has none.
ALTER TABLE chat_rooms ADD COLUMN picture text;

-- As in 0014; with the picture.
CREATE OR REPLACE FUNCTION chat_room_view(_room uuid, _shown_max bigint) RETURNS text
LANGUAGE sql STABLE AS $$
    SELECT json_build_object(
        'kind', r.kind, 'title', r.title, 'picture', r.picture, 'created_at', r.created_at, 'last_seq', r.last_seq,
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

-- Gives a room another title or picture. `_asked`: `title`, `picture`, of which what is missing stays (all that a node of
-- the version before asks is `title`), and `least`: the least ranks for it, by kind of room.
CREATE OR REPLACE FUNCTION chat_update(_now bigint, _room uuid, _actor uuid, _asked jsonb)
RETURNS TABLE (outcome integer, seq bigint, ts bigint, event text)
LANGUAGE plpgsql VOLATILE AS $$
#variable_conflict use_column
DECLARE
    _head chat_rooms;
    _rank integer := chat_rank_in(_room, _actor);
    _told jsonb := '{}';
    _event jsonb;
BEGIN
    SELECT * INTO _head FROM chat_rooms r WHERE r.room_id = _room AND r.last_seq > 0;
    IF _head.room_id IS NULL OR _rank = 0 OR _rank < (_asked->'least'->>_head.kind)::integer THEN
        outcome := 15;
        RETURN NEXT;
        RETURN;
    END IF;
    IF _asked ? 'title' AND _head.title IS DISTINCT FROM _asked->>'title' THEN
        _told := _told || jsonb_build_object('title', _asked->>'title');
        _head.title := _asked->>'title';
    END IF;
    IF _asked ? 'picture' AND _head.picture IS DISTINCT FROM _asked->>'picture' THEN
        _told := _told || jsonb_build_object('picture', _asked->>'picture');
        _head.picture := _asked->>'picture';
    END IF;
    IF _told = '{}' THEN
        outcome := 6;
    ELSE
        UPDATE chat_rooms r SET title = _head.title, picture = _head.picture WHERE r.room_id = _room;
        _event := _told || jsonb_build_object('type', 'room.updated', 'actor_id', _actor);
        outcome := 5;
        SELECT s.seq, s.ts INTO seq, ts FROM chat_system(_now, _room, _actor, _event) s;
        event := _event::text;
    END IF;
    RETURN NEXT;
END $$;
