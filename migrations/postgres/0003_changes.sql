-- Changes of one message, sends that mention, roles and titles: one at a time, within the batch of 0002, whose locks
-- they rely on.
--
-- Who may do what is not decided here: the program sends the least role for it, by its one table, as a
-- number (1 member, 2 admin, 3 owner, 9 nobody) for a direct room and for a group.
--
-- Further outcomes:
--   16 no such message   17 not allowed with it   18 deleted   19 another revision   20 too many
--   21 changed, with the event   22 nothing changed   23 changed, without an event
--   24 may not mention all   25 mentions one who is no member   26 no such member
-- 21 to 23 come with the message's `changed_seq` and `revision` as JSON.

CREATE FUNCTION chat_rank(_role text) RETURNS integer
LANGUAGE sql IMMUTABLE AS $$
    SELECT CASE _role WHEN 'member' THEN 1 WHEN 'admin' THEN 2 WHEN 'owner' THEN 3 ELSE 0 END
$$;

-- The rank of a member; 0 of anybody else.
CREATE FUNCTION chat_rank_in(_room uuid, _user uuid) RETURNS integer
LANGUAGE sql STABLE AS $$
    SELECT coalesce((SELECT chat_rank(p.role) FROM room_participants p
        WHERE p.room_id = _room AND p.user_id = _user AND p.left_seq IS NULL), 0)
$$;

-- A room with all that is shown of one, as JSON.
CREATE FUNCTION chat_whole_room(_room uuid, _shown_max bigint) RETURNS text
LANGUAGE sql STABLE AS $$
    SELECT (chat_room_view(_room, _shown_max)::jsonb || jsonb_build_object('pins', coalesce((
        SELECT jsonb_agg(jsonb_build_object('message_seq', x.message_seq, 'pinned_by', x.pinned_by,
            'pinned_at', x.pinned_at) ORDER BY x.pinned_seq DESC)
        FROM room_pins x WHERE x.room_id = _room), '[]')))::text
$$;

-- `_asked`: `what` (edit, delete, react, unreact, pin, unpin, report), `type` of its event, `seq` of the
-- message, `own` and `other`: least ranks for one's own and another's message, by kind of room; `text`,
-- `expected_revision`, `emoji`, and the bounds `user_max`, `max`, as they are needed.
CREATE FUNCTION chat_change(_now bigint, _room uuid, _actor uuid, _asked jsonb)
RETURNS TABLE (outcome integer, seq bigint, ts bigint, event text)
LANGUAGE plpgsql VOLATILE AS $$
#variable_conflict use_column
DECLARE
    _head chat_rooms;
    _old messages;
    _new messages;
    _rank integer := chat_rank_in(_room, _actor);
    _what text := _asked->>'what';
    _emoji text := _asked->>'emoji';
    _expected bigint := _asked->>'expected_revision';
    _count integer;
    _own integer;
    _has boolean := false;
BEGIN
    SELECT * INTO _head FROM chat_rooms r WHERE r.room_id = _room AND r.last_seq > 0;
    IF _head.room_id IS NULL OR _rank = 0 THEN
        outcome := 3;
        RETURN NEXT;
        RETURN;
    END IF;
    SELECT * INTO _old FROM messages m WHERE m.room_id = _room AND m.seq = (_asked->>'seq')::bigint;
    IF _old.room_id IS NULL THEN
        outcome := 16;
    ELSIF _old.kind = 'system' OR _rank < (_asked
        -> CASE WHEN _old.sender_id = _actor THEN 'own' ELSE 'other' END ->> _head.kind)::integer
    THEN
        outcome := 17;
    ELSIF _old.deleted_at IS NOT NULL THEN
        outcome := CASE WHEN _what IN ('delete', 'unreact', 'unpin') THEN 22 ELSE 18 END;
    ELSIF _what = 'edit' AND _old.text = _asked->>'text' THEN
        outcome := 22;
    ELSIF _what IN ('edit', 'delete') AND _expected <> _old.revision THEN
        outcome := 19;
    ELSIF _what IN ('react', 'unreact') THEN
        SELECT count(*), coalesce(bool_or(x.emoji = _emoji), false) INTO _own, _has
        FROM message_reactions x
        WHERE x.room_id = _room AND x.message_seq = _old.seq AND x.user_id = _actor;
        IF _has = (_what = 'react') THEN
            outcome := 22;
        ELSIF _what = 'react' AND (_own >= (_asked->>'user_max')::integer
            OR NOT coalesce(_old.reactions ? _emoji, false)
                AND (SELECT count(*) FROM jsonb_object_keys(coalesce(_old.reactions, '{}')))
                    >= (_asked->>'max')::integer)
        THEN
            outcome := 20;
        END IF;
    ELSIF _what IN ('pin', 'unpin') THEN
        SELECT count(*), coalesce(bool_or(x.message_seq = _old.seq), false) INTO _count, _has
        FROM room_pins x WHERE x.room_id = _room;
        IF _has = (_what = 'pin') THEN
            outcome := 22;
        ELSIF _what = 'pin' AND _count >= (_asked->>'max')::integer THEN
            outcome := 20;
        END IF;
    ELSIF _what = 'report' THEN
        INSERT INTO message_reports (room_id, message_seq, reporter_id, revision, created_at)
        VALUES (_room, _old.seq, _actor, _old.revision, _now)
        ON CONFLICT DO NOTHING;
        outcome := CASE WHEN FOUND THEN 23 ELSE 22 END;
    END IF;
    IF outcome IS NOT NULL THEN
        event := jsonb_build_object('changed_seq', _old.changed_seq, 'revision', _old.revision)::text;
        RETURN NEXT;
        RETURN;
    END IF;

    _new := _old;
    _new.changed_seq := _head.last_seq + 1;
    seq := _new.changed_seq;
    ts := greatest(_now, _head.last_ts);
    IF _what = 'edit' THEN
        _new.text := _asked->>'text';
        _new.revision := _old.revision + 1;
        _new.edited_at := ts;
    ELSIF _what = 'delete' THEN
        _new.text := NULL;
        _new.mentions := NULL;
        _new.reactions := NULL;
        _new.deleted_at := ts;
        DELETE FROM message_reactions x WHERE x.room_id = _room AND x.message_seq = _old.seq;
        DELETE FROM room_pins x WHERE x.room_id = _room AND x.message_seq = _old.seq;
    ELSIF _what = 'react' THEN
        INSERT INTO message_reactions (room_id, message_seq, user_id, emoji)
        VALUES (_room, _old.seq, _actor, _emoji);
        _count := coalesce((_old.reactions->>_emoji)::integer, 0) + 1;
        _new.reactions := coalesce(_old.reactions, '{}') || jsonb_build_object(_emoji, _count);
    ELSIF _what = 'unreact' THEN
        DELETE FROM message_reactions x WHERE x.room_id = _room AND x.message_seq = _old.seq
            AND x.user_id = _actor AND x.emoji = _emoji;
        _count := (_old.reactions->>_emoji)::integer - 1;
        _new.reactions := CASE
            WHEN _count > 0 THEN _old.reactions || jsonb_build_object(_emoji, _count)
            ELSE nullif(_old.reactions - _emoji, '{}') END;
    ELSIF _what = 'pin' THEN
        INSERT INTO room_pins (room_id, message_seq, pinned_seq, pinned_by, pinned_at)
        VALUES (_room, _old.seq, chat_change.seq, _actor, chat_change.ts);
    ELSE
        DELETE FROM room_pins x WHERE x.room_id = _room AND x.message_seq = _old.seq;
    END IF;
    UPDATE messages m SET changed_seq = _new.changed_seq, revision = _new.revision,
        edited_at = _new.edited_at, deleted_at = _new.deleted_at, text = _new.text,
        mentions = _new.mentions, reactions = _new.reactions
    WHERE m.room_id = _room AND m.seq = _old.seq;
    UPDATE chat_rooms r SET last_seq = chat_change.seq, last_ts = chat_change.ts
    WHERE r.room_id = _room;
    INSERT INTO room_events (room_id, seq, ts, type, message_seq, actor_id, data)
    VALUES (_room, chat_change.seq, chat_change.ts, _asked->>'type', _old.seq, _actor,
        CASE WHEN _what IN ('react', 'unreact') THEN jsonb_build_object(
            'emoji', _emoji, 'added', _what = 'react', 'count', _count) END);
    outcome := 21;
    event := jsonb_build_object('changed_seq', _new.changed_seq, 'revision', _new.revision,
        'count', _count, 'message', CASE WHEN _what = 'edit' THEN to_jsonb(_new) END)::text;
    RETURN NEXT;
END $$;

-- A send that mentions, decided alone. `_asked`: `text`, `mentions`, and `all`: the least ranks for
-- mentioning everybody, by kind of room.
CREATE FUNCTION chat_mention(
    _now bigint, _room uuid, _sender uuid, _id uuid, _hash bytea, _reply bigint, _asked jsonb
) RETURNS TABLE (outcome integer, seq bigint, ts bigint, event text)
LANGUAGE plpgsql VOLATILE AS $$
#variable_conflict use_column
DECLARE
    _old messages;
    _head chat_rooms;
    _rank integer := chat_rank_in(_room, _sender);
    -- The first mention that may not be decides; `all` comes before everybody.
    _mentions_all boolean := _asked->'mentions' ? 'all';
BEGIN
    SELECT * INTO _old FROM messages m
    WHERE m.client_msg_id = _id AND m.sender_id = _sender AND m.room_id = _room;
    SELECT * INTO _head FROM chat_rooms r WHERE r.room_id = _room AND r.last_seq > 0;
    IF _old.room_id IS NOT NULL THEN
        outcome := CASE WHEN _old.body_hash = _hash THEN 1 ELSE 2 END;
        seq := _old.seq;
        ts := _old.created_at;
    ELSIF _head.room_id IS NULL OR _rank = 0 THEN
        outcome := 3;
    ELSIF _reply IS NOT NULL AND NOT EXISTS (
        SELECT FROM messages m WHERE m.room_id = _room AND m.seq = _reply)
    THEN
        outcome := 4;
    ELSIF _mentions_all AND _rank < (_asked->'all'->>_head.kind)::integer THEN
        outcome := 24;
    ELSIF EXISTS (SELECT FROM jsonb_array_elements_text(_asked->'mentions') AS a (named)
        WHERE a.named <> 'all' AND NOT EXISTS (SELECT FROM room_participants p
            WHERE p.room_id = _room AND p.user_id = a.named::uuid AND p.left_seq IS NULL))
    THEN
        outcome := 25;
    END IF;
    IF outcome IS NOT NULL THEN
        RETURN NEXT;
        RETURN;
    END IF;
    outcome := 0;
    seq := _head.last_seq + 1;
    ts := greatest(_now, _head.last_ts);
    INSERT INTO messages (room_id, seq, sender_id, kind, changed_seq, revision, created_at,
        reply_to_seq, client_msg_id, body_hash, text, mentions)
    VALUES (_room, chat_mention.seq, _sender, 'text', chat_mention.seq, 1, chat_mention.ts,
        _reply, _id, _hash, _asked->>'text', _asked->'mentions');
    UPDATE chat_rooms r SET last_seq = chat_mention.seq, last_ts = chat_mention.ts
    WHERE r.room_id = _room;
    UPDATE message_read_status s SET read_seq = greatest(s.read_seq, chat_mention.seq),
        delivered_seq = greatest(s.delivered_seq, chat_mention.seq)
    WHERE s.room_id = _room AND s.user_id = _sender;
    RETURN NEXT;
END $$;

-- Gives members another role. `_asked`: `role`, and `least`: the least ranks for it, by kind of room. An
-- owner is made by another, who becomes admin, and never unmade.
CREATE FUNCTION chat_role(_now bigint, _room uuid, _actor uuid, _users uuid[], _asked jsonb)
RETURNS TABLE (outcome integer, seq bigint, ts bigint, event text)
LANGUAGE plpgsql VOLATILE AS $$
#variable_conflict use_column
DECLARE
    _head chat_rooms;
    _rank integer := chat_rank_in(_room, _actor);
    _role text := _asked->>'role';
    _others uuid[];
    _user uuid;
    _event jsonb;
BEGIN
    SELECT * INTO _head FROM chat_rooms r WHERE r.room_id = _room AND r.last_seq > 0;
    IF _head.room_id IS NULL OR _rank = 0 OR _rank < (_asked->'least'->>_head.kind)::integer THEN
        outcome := 15;
    ELSIF EXISTS (SELECT FROM unnest(_users) AS a (user_id)
        WHERE chat_rank_in(_room, a.user_id) = 0)
    THEN
        outcome := 26;
    ELSE
        SELECT coalesce(array_agg(a.user_id ORDER BY a.n), '{}') INTO _others
        FROM unnest(_users) WITH ORDINALITY AS a (user_id, n)
        WHERE chat_rank_in(_room, a.user_id) <> chat_rank(_role);
        IF cardinality(_others) = 0 THEN
            outcome := 6;
        ELSIF EXISTS (SELECT FROM unnest(_others) AS a (user_id)
            WHERE chat_rank_in(_room, a.user_id) = 3)
        THEN
            outcome := 15;
        END IF;
    END IF;
    IF outcome IS NOT NULL THEN
        RETURN NEXT;
        RETURN;
    END IF;
    IF _role = 'owner' THEN
        _others := _others || _actor;
    END IF;
    FOREACH _user IN ARRAY _others LOOP
        -- The one who acts is among them only to make place for another.
        IF _user = _actor THEN
            _role := 'admin';
        END IF;
        UPDATE room_participants p SET role = _role WHERE p.room_id = _room AND p.user_id = _user;
        _event := jsonb_build_object('type', 'member.role_changed', 'user_id', _user, 'role', _role,
            'actor_id', _actor);
        outcome := 5;
        SELECT s.seq, s.ts INTO seq, ts FROM chat_system(_now, _room, _actor, _event) s;
        event := _event::text;
        RETURN NEXT;
    END LOOP;
END $$;

-- Gives a room another title. `_asked`: `title`, and `least`: the least ranks for it, by kind of room.
CREATE FUNCTION chat_update(_now bigint, _room uuid, _actor uuid, _asked jsonb)
RETURNS TABLE (outcome integer, seq bigint, ts bigint, event text)
LANGUAGE plpgsql VOLATILE AS $$
#variable_conflict use_column
DECLARE
    _head chat_rooms;
    _rank integer := chat_rank_in(_room, _actor);
    _event jsonb;
BEGIN
    SELECT * INTO _head FROM chat_rooms r WHERE r.room_id = _room AND r.last_seq > 0;
    IF _head.room_id IS NULL OR _rank = 0 OR _rank < (_asked->'least'->>_head.kind)::integer THEN
        outcome := 15;
    ELSIF _head.title IS NOT DISTINCT FROM _asked->>'title' THEN
        outcome := 6;
    ELSE
        UPDATE chat_rooms r SET title = _asked->>'title' WHERE r.room_id = _room;
        _event := jsonb_build_object('type', 'room.updated', 'title', _asked->>'title',
            'actor_id', _actor);
        outcome := 5;
        SELECT s.seq, s.ts INTO seq, ts FROM chat_system(_now, _room, _actor, _event) s;
        event := _event::text;
    END IF;
    RETURN NEXT;
END $$;
