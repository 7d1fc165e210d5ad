-- Blocks: who wants to hear nothing of whom, in `user_relationships`, and what that forbids between two.
--
-- **Severed**: one of the two blocked the other, or both did. A direct room's row says so, for a send has
-- read and locked it anyway; for everything else there is `chat_severed`. A block locks the pair's direct
-- room, whose row it makes if there is none (and takes away again), and both users. So it waits for, or
-- is waited for by, a send in the room, and whatever makes the two members of another one.
--
-- Refusals are those that the same request has for other reasons, with the same words: nobody is told
-- who blocked whom.
--
-- Kinds of writes (0002): 11 block, 12 unblock. Further outcomes:
--   27 blocks whom they wanted, or no longer: what came of it as JSON   28 too many blocks
--
-- Functions that were there before are replaced as a whole; what is new in them says `severed`.

ALTER TABLE chat_rooms ADD COLUMN severed boolean NOT NULL DEFAULT false;
-- Rises with every change of the user's own blocks; `version` with those of others too.
ALTER TABLE chat_users ADD COLUMN block_version bigint NOT NULL DEFAULT 0;

-- Whether one of these blocked the user, or the user one of them.
CREATE FUNCTION chat_severed(_user uuid, _others uuid[]) RETURNS boolean
LANGUAGE sql STABLE AS $$
    SELECT EXISTS (SELECT FROM user_relationships x
            WHERE x.user_id = _user AND x.other_id = ANY (_others) AND x.kind = 'block')
        OR EXISTS (SELECT FROM user_relationships x
            WHERE x.other_id = _user AND x.user_id = ANY (_others) AND x.kind = 'block')
$$;

-- Blocks a user, or takes it back. The pair's room and both users are locked.
CREATE FUNCTION chat_block(
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
    END IF;
    outcome := 27;
    event := jsonb_build_object('changed', _changed, 'severed', _severed, 'block_version',
        (SELECT u.block_version FROM chat_users u WHERE u.user_id = _actor))::text;
    RETURN NEXT;
END $$;

CREATE OR REPLACE FUNCTION chat_send(
    _careful boolean, _now bigint, _base integer, _rooms uuid[], _senders uuid[], _ids uuid[],
    _hashes bytea[], _replies bigint[], _texts text[]
) RETURNS TABLE (ix integer, outcome integer, seq bigint, ts bigint, event text)
LANGUAGE plpgsql VOLATILE AS $$
#variable_conflict use_column
DECLARE
    _unanswered integer[] := '{}';
BEGIN
    IF cardinality(array_remove(_replies, NULL)) > 0 THEN
        SELECT coalesce(array_agg(a.n::integer), '{}') INTO _unanswered
        FROM unnest(_rooms, _replies) WITH ORDINALITY AS a (room_id, reply, n)
        WHERE a.reply IS NOT NULL AND NOT EXISTS (
            SELECT FROM messages m WHERE m.room_id = a.room_id AND m.seq = a.reply);
    END IF;
    IF NOT _careful AND cardinality(_unanswered) = 0 THEN
        RETURN QUERY
        WITH asked AS MATERIALIZED (
            SELECT a.*, greatest(_now, r.last_ts) AS ts,
                r.last_seq + row_number() OVER (PARTITION BY a.room_id ORDER BY a.n) AS seq,
                count(*) OVER () AS members
            FROM unnest(_rooms, _senders, _ids, _hashes, _replies, _texts)
                WITH ORDINALITY AS a (room_id, sender_id, id, hash, reply, body, n)
            JOIN chat_rooms r ON r.room_id = a.room_id AND NOT r.severed
            JOIN room_participants p
                ON p.room_id = a.room_id AND p.user_id = a.sender_id AND p.left_seq IS NULL
        ), given AS MATERIALIZED (
            SELECT a.* FROM asked a WHERE a.members = cardinality(_rooms)
        ), stored AS (
            INSERT INTO messages (room_id, seq, sender_id, kind, changed_seq, revision, created_at,
                reply_to_seq, client_msg_id, body_hash, text)
            SELECT g.room_id, g.seq, g.sender_id, 'text', g.seq, 1, g.ts, g.reply, g.id, g.hash, g.body
            FROM given g
        ), heads AS (
            UPDATE chat_rooms r SET last_seq = g.seq, last_ts = g.ts
            FROM (SELECT room_id, max(seq) AS seq, max(ts) AS ts FROM given GROUP BY room_id) g
            WHERE r.room_id = g.room_id
        ), marks AS (
            UPDATE message_read_status s
            SET read_seq = greatest(s.read_seq, g.seq), delivered_seq = greatest(s.delivered_seq, g.seq)
            FROM (SELECT room_id, sender_id, max(seq) AS seq FROM given GROUP BY room_id, sender_id) g
            WHERE s.room_id = g.room_id AND s.user_id = g.sender_id
        )
        SELECT _base + g.n::integer, 0, g.seq, g.ts, NULL FROM given g;
        IF FOUND THEN
            RETURN;
        END IF;
    END IF;
    RETURN QUERY
    WITH asked AS MATERIALIZED (
        SELECT a.*, r.last_seq, greatest(_now, r.last_ts) AS ts,
            old.seq AS old_seq, old.created_at AS old_ts,
            CASE
                WHEN old.seq IS NOT NULL THEN CASE WHEN old.body_hash = a.hash THEN 1 ELSE 2 END
                WHEN p.user_id IS NULL OR r.last_seq IS NULL OR r.severed THEN 3
                WHEN a.n = ANY (_unanswered) THEN 4
                ELSE 0
            END AS outcome
        FROM unnest(_rooms, _senders, _ids, _hashes, _replies, _texts)
            WITH ORDINALITY AS a (room_id, sender_id, id, hash, reply, body, n)
        LEFT JOIN chat_rooms r ON r.room_id = a.room_id
        LEFT JOIN room_participants p
            ON p.room_id = a.room_id AND p.user_id = a.sender_id AND p.left_seq IS NULL
        LEFT JOIN messages old ON old.client_msg_id = a.id AND old.sender_id = a.sender_id
            AND old.room_id = a.room_id
    ), given AS MATERIALIZED (
        SELECT a.*, a.last_seq + row_number() OVER (PARTITION BY a.room_id ORDER BY a.n) AS seq
        FROM asked a WHERE a.outcome = 0
    ), stored AS (
        INSERT INTO messages (room_id, seq, sender_id, kind, changed_seq, revision, created_at,
            reply_to_seq, client_msg_id, body_hash, text)
        SELECT g.room_id, g.seq, g.sender_id, 'text', g.seq, 1, g.ts, g.reply, g.id, g.hash, g.body
        FROM given g
    ), heads AS (
        UPDATE chat_rooms r SET last_seq = g.seq, last_ts = g.ts
        FROM (SELECT room_id, max(seq) AS seq, max(ts) AS ts FROM given GROUP BY room_id) g
        WHERE r.room_id = g.room_id
    ), marks AS (
        UPDATE message_read_status s
        SET read_seq = greatest(s.read_seq, g.seq), delivered_seq = greatest(s.delivered_seq, g.seq)
        FROM (SELECT room_id, sender_id, max(seq) AS seq FROM given GROUP BY room_id, sender_id) g
        WHERE s.room_id = g.room_id AND s.user_id = g.sender_id
    )
    SELECT _base + a.n::integer, a.outcome, coalesce(g.seq, a.old_seq), coalesce(g.ts, a.old_ts), NULL
    FROM asked a LEFT JOIN given g ON g.n = a.n;
END $$;

CREATE OR REPLACE FUNCTION chat_create(
    _now bigint, _room uuid, _actor uuid, _kind text, _well_formed boolean, _title text,
    _hash bytea, _others uuid[], _members_max integer, _rooms_max integer, _shown_max integer
) RETURNS TABLE (outcome integer, seq bigint, ts bigint, event text)
LANGUAGE plpgsql VOLATILE AS $$
#variable_conflict use_column
DECLARE
    _found chat_rooms;
    _all uuid[];
    _owner uuid;
    _event jsonb;
BEGIN
    SELECT * INTO STRICT _found FROM chat_rooms r WHERE r.room_id = _room;
    IF _found.last_seq > 0 THEN
        -- A pair has one room, whoever opens it, so a direct room's body does not matter.
        IF _found.kind <> _kind OR _kind = 'group' AND _found.body_hash <> _hash THEN
            outcome := 10;
        ELSIF EXISTS (SELECT FROM room_participants p
                WHERE p.room_id = _room AND p.user_id = _actor AND p.left_seq IS NULL) THEN
            outcome := 7;
            event := chat_whole_room(_room, _shown_max);
        ELSE
            -- Its creator, who is no member any more: told what they knew, and nothing newer.
            outcome := 8;
            SELECT m.seq, m.created_at, m.event::text INTO seq, ts, event
            FROM messages m WHERE m.room_id = _room AND m.seq = 1;
        END IF;
        RETURN NEXT;
        RETURN;
    END IF;
    IF NOT _well_formed THEN
        outcome := 11;
        RETURN NEXT;
        RETURN;
    END IF;
    IF cardinality(_others) >= _members_max THEN
        outcome := 13;
        RETURN NEXT;
        RETURN;
    END IF;
    SELECT array_agg(a.user_id ORDER BY a.user_id) INTO _all
    FROM unnest(_others || _actor) AS a (user_id);
    -- The first who stands in the way says why.
    SELECT CASE WHEN u.user_id IS NULL THEN 12 ELSE 14 END INTO outcome
    FROM unnest(_all) AS a (user_id) LEFT JOIN chat_users u ON u.user_id = a.user_id
    WHERE u.user_id IS NULL OR u.room_count >= _rooms_max
    ORDER BY a.user_id LIMIT 1;
    IF outcome IS NULL AND chat_severed(_actor, _others) THEN
        outcome := 15;
    END IF;
    IF outcome IS NOT NULL THEN
        RETURN NEXT;
        RETURN;
    END IF;
    IF _kind = 'group' THEN
        _owner := _actor;
    END IF;
    SELECT jsonb_build_object('type', 'room.created', 'actor_id', _actor, 'room', jsonb_build_object(
        'kind', _kind, 'title', _title, 'member_count', cardinality(_all), 'members',
        jsonb_agg(jsonb_build_object('user_id', u.user_id, 'name', u.name, 'role',
            CASE WHEN u.user_id = _owner THEN 'owner' ELSE 'member' END) ORDER BY u.user_id)))
    INTO _event
    FROM (SELECT c.user_id, c.name FROM chat_users c WHERE c.user_id = ANY (_all)
        ORDER BY c.user_id LIMIT _shown_max) u;
    UPDATE chat_rooms r SET kind = _kind, title = _title, created_by = _actor, created_at = _now,
        body_hash = _hash
    WHERE r.room_id = _room;
    PERFORM chat_join(_now, _room, _all, _owner, 1, 0);
    SELECT s.seq, s.ts INTO seq, ts FROM chat_system(_now, _room, _actor, _event) s;
    outcome := 9;
    event := _event::text;
    RETURN NEXT;
END $$;

CREATE OR REPLACE FUNCTION chat_add(
    _now bigint, _room uuid, _actor uuid, _users uuid[], _members_max integer, _rooms_max integer
) RETURNS TABLE (outcome integer, seq bigint, ts bigint, event text)
LANGUAGE plpgsql VOLATILE AS $$
#variable_conflict use_column
DECLARE
    _found chat_rooms;
    _joining uuid[];
    _ts bigint;
BEGIN
    SELECT r.* INTO _found FROM chat_rooms r
    JOIN room_participants p ON p.room_id = r.room_id AND p.user_id = _actor
        AND p.left_seq IS NULL AND p.role IN ('admin', 'owner')
    WHERE r.room_id = _room AND r.kind = 'group' AND r.last_seq > 0;
    IF NOT FOUND THEN
        outcome := 15;
        RETURN NEXT;
        RETURN;
    END IF;
    SELECT coalesce(array_agg(a.user_id ORDER BY a.n), '{}') INTO _joining
    FROM unnest(_users) WITH ORDINALITY AS a (user_id, n)
    WHERE NOT EXISTS (SELECT FROM room_participants p
        WHERE p.room_id = _room AND p.user_id = a.user_id AND p.left_seq IS NULL);
    IF EXISTS (SELECT FROM unnest(_joining) AS a (user_id)
            LEFT JOIN chat_users u ON u.user_id = a.user_id WHERE u.user_id IS NULL) THEN
        outcome := 12;
    ELSIF _found.member_count + cardinality(_joining) > _members_max THEN
        outcome := 13;
    ELSIF EXISTS (SELECT FROM chat_users u
            WHERE u.user_id = ANY (_joining) AND u.room_count >= _rooms_max) THEN
        outcome := 14;
    ELSIF cardinality(_joining) = 0 THEN
        outcome := 6;
    ELSIF chat_severed(_actor, _joining) THEN
        outcome := 15;
    END IF;
    IF outcome IS NOT NULL THEN
        RETURN NEXT;
        RETURN;
    END IF;
    _ts := greatest(_now, _found.last_ts);
    PERFORM chat_join(_now, _room, _joining, NULL, _found.last_seq + 1, 1);
    UPDATE chat_rooms r SET last_seq = r.last_seq + cardinality(_joining), last_ts = _ts
    WHERE r.room_id = _room;
    RETURN QUERY
    WITH joined AS MATERIALIZED (
        SELECT _found.last_seq + a.n AS seq, jsonb_build_object('type', 'member.joined',
            'user_id', a.user_id, 'name', u.name, 'role', 'member', 'actor_id', _actor) AS event
        FROM unnest(_joining) WITH ORDINALITY AS a (user_id, n)
        JOIN chat_users u ON u.user_id = a.user_id
    ), stored AS (
        INSERT INTO messages (room_id, seq, sender_id, kind, changed_seq, revision, created_at, event)
        SELECT _room, j.seq, _actor, 'system', j.seq, 1, _ts, j.event FROM joined j
    )
    SELECT 5, j.seq, _ts, j.event::text FROM joined j ORDER BY j.seq;
END $$;

CREATE OR REPLACE FUNCTION chat_change(_now bigint, _room uuid, _actor uuid, _asked jsonb)
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
    -- After what holds already: a change that is only asked for again was made.
    IF outcome IS NULL AND _head.severed AND NOT coalesce((_asked->>'severed')::boolean, false) THEN
        outcome := 17;
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
            IF _at = 1 AND _end = _count THEN
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
                RETURN QUERY SELECT _at, c.* FROM chat_mention(_now, _rooms[_at], _actors[_at],
                    _ids[_at], _hashes[_at], _replies[_at], _texts[_at]::jsonb) c;
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
