-- Files: what users bring, and which messages have it. The bytes lie elsewhere.
--
-- Locks: as in 0001. Whoever has a room's lock locks uploads after it, in the order of their ids; an upload is of one
-- room, so nobody waits for another room by it. A user's row is locked to count what they brought.
--
-- Further outcomes, of a send:
--   40 a file is no upload of the sender for this room
--   41 a file is of another kind than the message
--   42 a file may not be used; `event` says in which state it is
--   43 a file was not brought in time

CREATE TABLE uploads (
    upload_id    uuid PRIMARY KEY,
    owner_id     uuid NOT NULL,
    -- For messages of this room only.
    room_id      uuid NOT NULL,
    kind         text NOT NULL CHECK (kind IN ('image', 'file', 'voice')),
    -- Where its bytes are, in the bucket of its kind.
    object_key   text NOT NULL,
    name         text NOT NULL,
    size         bigint NOT NULL,
    content_type text NOT NULL,
    -- The hash of its bytes, if it was told.
    sha256       bytea CHECK (octet_length(sha256) = 32),
    created_at   bigint NOT NULL,
    -- Until then it can be brought.
    expires_at   bigint NOT NULL,
    state        text NOT NULL
        CHECK (state IN ('created', 'checked', 'too_large', 'wrong', 'used', 'removed')),
    -- The message that has it, or had.
    message_seq  bigint,
    -- From then on it is removed; NULL: a message has it.
    remove_at    bigint,
    -- Until then somebody removes it.
    lease_until  bigint NOT NULL DEFAULT 0
);

-- What a user brought lately.
CREATE INDEX uploads_of_owner ON uploads (owner_id, created_at);

CREATE INDEX uploads_to_remove ON uploads (remove_at) WHERE remove_at IS NOT NULL;

-- Of a message with files: its kind and what they are, an object. Then `kind` is `text` all the same, so that the
-- version before can read it. NULL: it has none.
ALTER TABLE messages ADD COLUMN attachments jsonb;

-- Takes note of a ticket: 0 and until when it is good; 3 the owner may not send in the room; 4 too much for a day, and
-- when there is room for more, ms from now.
CREATE FUNCTION chat_upload(
    _clock bigint, _id uuid, _owner uuid, _room uuid, _kind text, _key text, _name text, _size bigint,
    _type text, _sha256 bytea, _ticket_ms bigint, _unused_ms bigint, _window_ms bigint, _uploads_max bigint,
    _bytes_max bigint
) RETURNS TABLE (outcome integer, told bigint)
LANGUAGE plpgsql VOLATILE AS $$
#variable_conflict use_column
DECLARE
    _now bigint := chat_now(_clock);
    _count bigint;
    _bytes numeric;
    _oldest bigint;
BEGIN
    -- Who is erased at the same time waits, or is gone.
    PERFORM FROM chat_users u WHERE u.user_id = _owner FOR NO KEY UPDATE;
    IF NOT FOUND OR NOT EXISTS (SELECT FROM room_participants p
        JOIN chat_rooms r ON r.room_id = p.room_id AND NOT r.severed
        WHERE p.room_id = _room AND p.user_id = _owner AND p.left_seq IS NULL)
    THEN
        outcome := 3;
        RETURN NEXT;
        RETURN;
    END IF;
    SELECT u.expires_at INTO told FROM uploads u WHERE u.upload_id = _id;
    IF FOUND THEN
        outcome := 0;
        RETURN NEXT;
        RETURN;
    END IF;
    SELECT count(*), coalesce(sum(u.size), 0), coalesce(min(u.created_at), _now)
    INTO _count, _bytes, _oldest
    FROM uploads u WHERE u.owner_id = _owner AND u.created_at > _now - _window_ms;
    IF _count >= _uploads_max OR _bytes + _size > _bytes_max THEN
        outcome := 4;
        told := _oldest + _window_ms - _now;
        RETURN NEXT;
        RETURN;
    END IF;
    outcome := 0;
    told := _now + _ticket_ms;
    INSERT INTO uploads (upload_id, owner_id, room_id, kind, object_key, name, size, content_type, sha256,
        created_at, expires_at, state, remove_at)
    VALUES (_id, _owner, _room, _kind, _key, _name, _size, _type, _sha256, _now, chat_upload.told, 'created',
        _now + _unused_ms);
    RETURN NEXT;
END $$;

-- As in 0007; the files of a message that is deleted are removed.
CREATE OR REPLACE FUNCTION chat_change(_now bigint, _room uuid, _actor uuid, _asked jsonb)
RETURNS TABLE (outcome integer, seq bigint, ts bigint, event text)
LANGUAGE plpgsql VOLATILE AS $$
#variable_conflict use_column
DECLARE
    _head chat_rooms;
    _old messages;
    _new messages;
    -- Of a change that the service makes: the entry of the audit trail. It needs no membership.
    _service jsonb := _asked->'service';
    _rank integer := CASE WHEN _service IS NULL THEN chat_rank_in(_room, _actor) ELSE 3 END;
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
    ELSIF _old.kind = 'system' OR _service IS NULL AND _rank < (_asked
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
    -- After what holds already: a change that is only asked for again was made.
    IF outcome IS NULL AND _head.severed AND NOT coalesce((_asked->>'severed')::boolean, false) THEN
        outcome := 17;
    END IF;
    IF _service IS NOT NULL AND coalesce(outcome, 21) IN (21, 22)
        AND admin_note(_now, _service, CASE WHEN outcome IS NULL THEN 'done' ELSE 'unchanged' END)
    THEN
        UPDATE message_reports x SET resolution = 'deleted', resolved_at = _now,
            resolved_by = _service->>'who', note = _service->>'detail'
        WHERE x.room_id = _room AND x.message_seq = _old.seq
            AND x.resolution IS DISTINCT FROM 'deleted';
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
        _new.attachments := jsonb_set(_old.attachments, '{files}', '[]');
        _new.deleted_at := ts;
        DELETE FROM message_reactions x WHERE x.room_id = _room AND x.message_seq = _old.seq;
        DELETE FROM room_pins x WHERE x.room_id = _room AND x.message_seq = _old.seq;
        IF _old.attachments IS NOT NULL THEN
            UPDATE uploads u SET state = 'removed', remove_at = _now
            WHERE u.upload_id IN (SELECT (f.file->>'upload_id')::uuid
                FROM jsonb_array_elements(_old.attachments->'files') AS f (file));
        END IF;
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
        mentions = _new.mentions, reactions = _new.reactions, attachments = _new.attachments
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

-- As in 0005, for sends that mention, have files, or both: each file is used by the message, once and for good.
CREATE OR REPLACE FUNCTION chat_mention(
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
    _files jsonb := _asked->'files';
    -- What the message keeps of them.
    _kept jsonb;
BEGIN
    SELECT * INTO _old FROM messages m
    WHERE m.client_msg_id = _id AND m.sender_id = _sender AND m.room_id = _room;
    SELECT * INTO _head FROM chat_rooms r WHERE r.room_id = _room AND r.last_seq > 0;
    IF _old.room_id IS NOT NULL THEN
        outcome := CASE WHEN _old.body_hash = _hash THEN 1 ELSE 2 END;
        seq := _old.seq;
        ts := _old.created_at;
    ELSIF _head.room_id IS NULL OR _rank = 0 OR _head.severed THEN
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
    ELSIF chat_severed(_sender, ARRAY(
        SELECT a.named::uuid FROM jsonb_array_elements_text(_asked->'mentions') AS a (named)
        WHERE a.named <> 'all'))
    THEN
        outcome := 3;
    END IF;
    IF outcome IS NULL AND _files IS NOT NULL THEN
        -- Against whoever removes them at the same time.
        PERFORM FROM uploads u
        WHERE u.upload_id IN (SELECT (f.file->>'upload_id')::uuid FROM jsonb_array_elements(_files) AS f (file))
        ORDER BY u.upload_id FOR NO KEY UPDATE;
        -- The first that may not be used decides.
        SELECT w.outcome, w.state INTO outcome, event FROM (
            SELECT f.n,
                CASE
                    WHEN u.upload_id IS NULL THEN 40
                    WHEN u.kind <> _asked->>'kind' THEN 41
                    WHEN u.remove_at <= _now THEN 42
                    WHEN u.state = 'created' AND u.expires_at <= _now THEN 43
                    WHEN u.state <> 'checked' THEN 42
                END AS outcome,
                CASE WHEN u.remove_at <= _now THEN 'removed' ELSE u.state END AS state
            FROM jsonb_array_elements(_files) WITH ORDINALITY AS f (file, n)
            LEFT JOIN uploads u ON u.upload_id = (f.file->>'upload_id')::uuid
                AND u.owner_id = _sender AND u.room_id = _room) w
        WHERE w.outcome IS NOT NULL ORDER BY w.n LIMIT 1;
    END IF;
    IF outcome IS NOT NULL THEN
        RETURN NEXT;
        RETURN;
    END IF;
    outcome := 0;
    seq := _head.last_seq + 1;
    ts := greatest(_now, _head.last_ts);
    IF _files IS NOT NULL THEN
        SELECT jsonb_build_object('kind', _asked->>'kind', 'files', jsonb_agg(f.file || jsonb_build_object(
            'name', u.name, 'size', u.size, 'content_type', u.content_type) ORDER BY f.n))
        INTO _kept
        FROM jsonb_array_elements(_files) WITH ORDINALITY AS f (file, n)
        JOIN uploads u ON u.upload_id = (f.file->>'upload_id')::uuid;
        UPDATE uploads u SET state = 'used', message_seq = chat_mention.seq, remove_at = NULL
        WHERE u.upload_id IN (SELECT (f.file->>'upload_id')::uuid FROM jsonb_array_elements(_files) AS f (file));
        event := _kept::text;
    END IF;
    INSERT INTO messages (room_id, seq, sender_id, kind, changed_seq, revision, created_at,
        reply_to_seq, client_msg_id, body_hash, text, mentions, attachments)
    VALUES (_room, chat_mention.seq, _sender, 'text', chat_mention.seq, 1, chat_mention.ts,
        _reply, _id, _hash, CASE WHEN _files IS NULL THEN _asked->>'text' ELSE nullif(_asked->>'text', '') END,
        nullif(_asked->'mentions', '[]'), _kept);
    UPDATE chat_rooms r SET last_seq = chat_mention.seq, last_ts = chat_mention.ts
    WHERE r.room_id = _room;
    UPDATE message_read_status s SET read_seq = greatest(s.read_seq, chat_mention.seq),
        delivered_seq = greatest(s.delivered_seq, chat_mention.seq)
    WHERE s.room_id = _room AND s.user_id = _sender;
    RETURN NEXT;
END $$;

-- As in 0008; so are the files of an erased user's messages.
CREATE OR REPLACE FUNCTION chat_erase(
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

    UPDATE uploads u SET state = 'removed', remove_at = _now
    WHERE u.owner_id = _user AND u.room_id = _room AND u.message_seq > _from AND u.message_seq <= _to
        AND u.state = 'used';
    WITH erased AS (
        UPDATE messages m SET sender_id = _as, text = NULL, mentions = NULL, reactions = NULL,
            attachments = jsonb_set(m.attachments, '{files}', '[]'),
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
