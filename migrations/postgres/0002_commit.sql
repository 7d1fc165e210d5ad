-- A batch of writes as one round trip: lock first, look afterwards.
--
-- The functions are VOLATILE and run in READ COMMITTED, so each statement inside takes a snapshot of
-- its own: those after the locks see what was committed while they waited. In a single statement the
-- snapshot is older than the locks, which was measured to double a concurrent retry, to leave holes in
-- `seq`, or to store a message of a member just removed.
--
-- Outcomes, as the program reads them:
--   0 sent   1 duplicate   2 id used for another body   3 no member   4 answers no message
--   5 one event of a change   6 nothing changed   7 room found   8 room found, as it was opened
--   9 room opened   10 id used for another room   11 not the members of such a room
--   12 unknown user   13 too many members   14 too many rooms   15 not allowed
--   from 16 on: changes of messages, sends that mention, roles (0003)

-- Sends that are decided together: no two of one sender and room have the same id, and none answers
-- another of them. Their rooms are locked.
--
-- Not `_careful`: when nothing is to be refused, they are stored without looking for duplicates; the
-- index refuses one, with it the whole batch, and the program comes again, careful. To look costs more
-- than all the rest: the plan of a join with `messages` opens every partition with every index.
CREATE FUNCTION chat_send(
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
            JOIN chat_rooms r ON r.room_id = a.room_id
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
                WHEN p.user_id IS NULL OR r.last_seq IS NULL THEN 3
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

-- A room with its longest-serving members, as JSON.
CREATE FUNCTION chat_room_view(_room uuid, _shown_max bigint) RETURNS text
LANGUAGE sql STABLE AS $$
    SELECT json_build_object(
        'kind', r.kind, 'title', r.title, 'created_at', r.created_at, 'last_seq', r.last_seq,
        'member_count', r.member_count,
        'members', coalesce((
            SELECT json_agg(json_build_object(
                'user_id', p.user_id, 'name', u.name, 'role', p.role,
                'read_seq', coalesce(s.read_seq, 0), 'delivered_seq', coalesce(s.delivered_seq, 0)
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

-- Writes one system message and gives it the room's next `seq`.
CREATE FUNCTION chat_system(_now bigint, _room uuid, _actor uuid, _event jsonb)
RETURNS TABLE (seq bigint, ts bigint)
LANGUAGE plpgsql VOLATILE AS $$
#variable_conflict use_column
BEGIN
    UPDATE chat_rooms r SET last_seq = r.last_seq + 1, last_ts = greatest(_now, r.last_ts)
    WHERE r.room_id = _room RETURNING r.last_seq, r.last_ts INTO seq, ts;
    INSERT INTO messages (room_id, seq, sender_id, kind, changed_seq, revision, created_at, event)
    VALUES (_room, chat_system.seq, _actor, 'system', chat_system.seq, 1, chat_system.ts, _event);
    RETURN NEXT;
END $$;

-- Makes users members from the event of this place on: the `n`-th of them from `_seq + n * _step`.
CREATE FUNCTION chat_join(
    _now bigint, _room uuid, _users uuid[], _owner uuid, _seq bigint, _step bigint
) RETURNS void
LANGUAGE plpgsql VOLATILE AS $$
BEGIN
    INSERT INTO room_participants AS p (room_id, user_id, role, joined_seq, joined_at)
    SELECT _room, a.user_id, CASE WHEN a.user_id = _owner THEN 'owner' ELSE 'member' END,
        _seq + (a.n - 1) * _step, _now
    FROM unnest(_users) WITH ORDINALITY AS a (user_id, n)
    ON CONFLICT (room_id, user_id) DO UPDATE SET role = excluded.role,
        joined_seq = excluded.joined_seq, joined_at = excluded.joined_at,
        left_seq = NULL, left_at = NULL;
    INSERT INTO message_read_status AS s (room_id, user_id, read_seq, delivered_seq)
    SELECT _room, a.user_id, _seq + (a.n - 1) * _step, _seq + (a.n - 1) * _step
    FROM unnest(_users) WITH ORDINALITY AS a (user_id, n)
    ON CONFLICT (room_id, user_id) DO UPDATE SET
        read_seq = greatest(s.read_seq, excluded.read_seq),
        delivered_seq = greatest(s.delivered_seq, excluded.delivered_seq);
    UPDATE chat_users u SET version = u.version + 1, room_count = u.room_count + 1
    WHERE u.user_id = ANY (_users);
    UPDATE chat_rooms r SET member_count = r.member_count + cardinality(_users)
    WHERE r.room_id = _room;
END $$;

-- Opens a room, or finds it. Its row is there and locked; until it is opened its `last_seq` is 0.
CREATE FUNCTION chat_create(
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

-- Adds members: all or none.
CREATE FUNCTION chat_add(
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

-- Removes members, or lets the actor leave: oneself last, because after it there are no rights left to
-- remove others by. A group whose owner leaves gets the longest-serving admin, else member.
CREATE FUNCTION chat_remove(_now bigint, _room uuid, _actor uuid, _users uuid[])
RETURNS TABLE (outcome integer, seq bigint, ts bigint, event text)
LANGUAGE plpgsql VOLATILE AS $$
#variable_conflict use_column
DECLARE
    _found chat_rooms;
    _own room_participants;
    _alone boolean := _users = ARRAY[_actor];
    _leaving uuid[];
    _heir uuid;
    _event jsonb;
BEGIN
    SELECT * INTO _found FROM chat_rooms r
    WHERE r.room_id = _room AND r.kind = 'group' AND r.last_seq > 0;
    SELECT * INTO _own FROM room_participants p WHERE p.room_id = _room AND p.user_id = _actor;
    IF _found.room_id IS NULL OR _own.user_id IS NULL
        OR NOT _alone AND (_own.left_seq IS NOT NULL OR _own.role = 'member')
        OR NOT _alone AND EXISTS (
            SELECT FROM room_participants p
            WHERE p.room_id = _room AND p.user_id = ANY (_users) AND p.user_id <> _actor
                AND p.left_seq IS NULL AND p.role <> 'member'
                AND (_own.role <> 'owner' OR p.role = 'owner'))
    THEN
        outcome := 15;
        RETURN NEXT;
        RETURN;
    END IF;
    SELECT array_agg(a.user_id ORDER BY a.user_id = _actor, a.n) INTO _leaving
    FROM unnest(_users) WITH ORDINALITY AS a (user_id, n)
    JOIN room_participants p ON p.room_id = _room AND p.user_id = a.user_id AND p.left_seq IS NULL;
    IF _leaving IS NULL THEN
        outcome := 6;
        RETURN NEXT;
        RETURN;
    END IF;
    _found.last_ts := greatest(_now, _found.last_ts);
    UPDATE room_participants p SET left_seq = _found.last_seq + a.n, left_at = _found.last_ts
    FROM unnest(_leaving) WITH ORDINALITY AS a (user_id, n)
    WHERE p.room_id = _room AND p.user_id = a.user_id;
    UPDATE chat_users u SET version = u.version + 1, room_count = u.room_count - 1
    WHERE u.user_id = ANY (_leaving);
    UPDATE chat_rooms r SET last_seq = r.last_seq + cardinality(_leaving), last_ts = _found.last_ts,
        member_count = r.member_count - cardinality(_leaving)
    WHERE r.room_id = _room;
    RETURN QUERY
    WITH gone AS MATERIALIZED (
        SELECT _found.last_seq + a.n AS seq, jsonb_build_object('type', 'member.left',
            'user_id', a.user_id, 'actor_id', _actor) AS event
        FROM unnest(_leaving) WITH ORDINALITY AS a (user_id, n)
    ), stored AS (
        INSERT INTO messages (room_id, seq, sender_id, kind, changed_seq, revision, created_at, event)
        SELECT _room, g.seq, _actor, 'system', g.seq, 1, _found.last_ts, g.event FROM gone g
    )
    SELECT 5, g.seq, _found.last_ts, g.event::text FROM gone g ORDER BY g.seq;
    IF _own.role <> 'owner' OR NOT _actor = ANY (_leaving) THEN
        RETURN;
    END IF;
    SELECT p.user_id INTO _heir FROM room_participants p
    WHERE p.room_id = _room AND p.left_seq IS NULL
    ORDER BY p.role = 'admin' DESC, p.joined_seq, p.user_id LIMIT 1;
    IF _heir IS NULL THEN
        RETURN;
    END IF;
    UPDATE room_participants p SET role = 'owner' WHERE p.room_id = _room AND p.user_id = _heir;
    _event := jsonb_build_object('type', 'member.role_changed', 'user_id', _heir, 'role', 'owner',
        'actor_id', _actor);
    outcome := 5;
    SELECT s.seq, s.ts INTO seq, ts FROM chat_system(_now, _room, _actor, _event) s;
    event := _event::text;
    RETURN NEXT;
END $$;

-- The batch. Per write: its kind (0 send, 1 direct room, 2 group, 3 add, 4 remove or leave, 5 and 6 a
-- direct room and a group that are not well formed, 7 change of a message, 8 send that mentions,
-- 9 roles and 10 title, these with what is asked as JSON in `_texts`); for sends the last write of the stretch that is
-- decided together; the place in `_users` where the users it names end. `_locked_users`: all users that
-- changes of members name, and who makes them.
CREATE FUNCTION chat_commit(
    _careful boolean, _clock bigint, _kinds integer[], _run_ends integer[], _rooms uuid[],
    _actors uuid[], _ids uuid[], _hashes bytea[], _replies bigint[], _texts text[],
    _user_ends integer[], _users uuid[], _locked_users uuid[], _members_max integer,
    _rooms_max integer, _shown_max integer
) RETURNS TABLE (ix integer, outcome integer, seq bigint, ts bigint, event text)
LANGUAGE plpgsql VOLATILE AS $$
#variable_conflict use_column
DECLARE
    _count integer := cardinality(_kinds);
    _creates boolean := _kinds && '{1,2,5,6}'::integer[];
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
            SELECT a.room_id, bool_or(a.kind IN (1, 2, 5, 6)) AS created
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
