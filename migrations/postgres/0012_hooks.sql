-- Webhooks out: what other services are told, and what is left to be told.
--
-- For messages the table `messages` is the outbox: a send writes nothing here. The index of messages, which runs
-- behind the commits, notes in `hook_rooms` up to which event it saw a room; one worker follows that, decides who
-- is to be told, and writes it to `hook_outbox` in the transaction that moves its place in the room. Other causes
-- write their row in their own transaction.

-- Who works, and whether anybody wants to be told.
CREATE TABLE hook_state (
    one             smallint PRIMARY KEY CHECK (one = 1),
    holder          uuid,
    lease_until     bigint NOT NULL DEFAULT 0,
    -- Until then causes are noted. A worker moves it on as long as there is one.
    wanted_until    bigint NOT NULL DEFAULT 0,
    -- What was written before is not told.
    since           bigint NOT NULL DEFAULT 0,
    -- The receiver answered 410: nothing is sent until an operator says so.
    disabled_at     bigint
);

INSERT INTO hook_state (one) VALUES (1);

-- Up to which event a room was seen, and up to which it was decided whom to tell.
CREATE TABLE hook_rooms (
    room_id   uuid PRIMARY KEY,
    noted_seq bigint NOT NULL,
    done_seq  bigint NOT NULL,
    -- Since when there is something to be decided, or when it was looked at last.
    noted_at  bigint NOT NULL
) WITH (fillfactor = 70);

CREATE INDEX hook_rooms_due ON hook_rooms (room_id) WHERE noted_seq > done_seq;

-- What is to be told. In a room the order is that of `n`.
CREATE TABLE hook_outbox (
    n          bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    webhook_id uuid NOT NULL UNIQUE,
    type       text COLLATE "C" NOT NULL,
    room_id    uuid NOT NULL,
    -- Of a push: whose, and of which message.
    user_id    uuid,
    seq        bigint,
    created_at bigint NOT NULL,
    -- `data` of the body, as it is sent: never changed.
    data       text NOT NULL,
    -- 0 waits, 1 delivered, 2 given up.
    state      smallint NOT NULL DEFAULT 0,
    attempts   integer NOT NULL DEFAULT 0,
    next_at    bigint NOT NULL DEFAULT 0,
    status     integer,
    error      text,
    ended_at   bigint
);

CREATE INDEX hook_outbox_waiting ON hook_outbox (next_at, n) WHERE state = 0;
CREATE INDEX hook_outbox_of_room ON hook_outbox (room_id, n) WHERE state = 0;
CREATE INDEX hook_outbox_ended ON hook_outbox (ended_at) WHERE state <> 0;

-- Pushes that were sent and not read since: the newest of each user and room.
CREATE TABLE hook_pushed (
    room_id uuid NOT NULL,
    user_id uuid NOT NULL,
    seq     bigint NOT NULL,
    PRIMARY KEY (room_id, user_id)
);

CREATE FUNCTION hook_wanted(_now bigint) RETURNS boolean
LANGUAGE sql STABLE AS $$
    SELECT EXISTS (SELECT FROM hook_state s WHERE s.wanted_until > _now)
$$;

-- Takes or keeps the work; whether it is the caller's, since when messages are told, whether the receiver is gone,
-- and since when the oldest waits.
CREATE FUNCTION hook_lease(
    _clock bigint, _holder uuid, _lease_ms bigint, _wanted_ms bigint, _kept_ms bigint, _takes boolean
) RETURNS TABLE (
    is_held boolean, now bigint, since bigint, disabled_at bigint, oldest bigint, is_taken_over boolean
)
LANGUAGE plpgsql VOLATILE AS $$
#variable_conflict use_column
DECLARE
    _now bigint := chat_now(_clock);
    _old hook_state;
BEGIN
    SELECT * INTO _old FROM hook_state s FOR UPDATE;
    is_held := _takes AND (_old.holder IS NOT DISTINCT FROM _holder OR _old.lease_until < _now);
    is_taken_over := coalesce(is_held AND _old.holder <> _holder AND _old.lease_until > 0, false);
    now := _now;
    IF is_held THEN
        IF _old.wanted_until < _now THEN
            -- Nobody wanted to be told for long: what was noted before that is not told any more.
            DELETE FROM hook_rooms;
            DELETE FROM hook_pushed;
            DELETE FROM hook_outbox WHERE state = 0;
            _old.since := _now;
        END IF;
        UPDATE hook_state SET holder = _holder, lease_until = _now + _lease_ms, since = _old.since,
            wanted_until = CASE WHEN _old.disabled_at IS NULL THEN _now + _wanted_ms
                ELSE greatest(_old.wanted_until, _old.disabled_at + _wanted_ms) END;
        DELETE FROM hook_outbox o USING (
            SELECT e.n FROM hook_outbox e WHERE e.state <> 0 AND e.ended_at < _now - _kept_ms
            ORDER BY e.ended_at LIMIT 200
        ) e
        WHERE o.n = e.n;
    ELSIF NOT _takes AND _old.holder = _holder THEN
        UPDATE hook_state SET lease_until = 0;
    END IF;
    since := _old.since;
    disabled_at := _old.disabled_at;
    SELECT min(o.created_at) INTO oldest FROM (
        SELECT w.created_at FROM hook_outbox w WHERE w.state = 0 ORDER BY w.next_at, w.n LIMIT 100
    ) o;
    RETURN NEXT;
END $$;

-- Writes entries of the index of messages, and how far rooms are indexed by that; as before, and notes for the
-- webhooks that there is something new in these rooms.
CREATE OR REPLACE FUNCTION chat_index(
    _rooms uuid[], _seqs bigint[], _places bigint[], _senders uuid[], _changed bigint[],
    _documents text[], _done_rooms uuid[], _done_seqs bigint[]
) RETURNS void
LANGUAGE plpgsql VOLATILE AS $$
BEGIN
    INSERT INTO message_search AS s (room_id, seq, place, sender_id, changed_seq, document)
    SELECT a.room_id, a.seq, a.place, a.sender_id, a.changed_seq, a.document::tsvector
    FROM unnest(_rooms, _seqs, _places, _senders, _changed, _documents)
        AS a (room_id, seq, place, sender_id, changed_seq, document)
    ORDER BY a.room_id, a.seq
    ON CONFLICT (room_id, seq) DO UPDATE
    SET document = excluded.document, changed_seq = excluded.changed_seq
    WHERE s.changed_seq < excluded.changed_seq;
    IF EXISTS (SELECT FROM hook_state s WHERE s.wanted_until > 0) THEN
        -- A room that was not noted yet begins where the index was with it.
        INSERT INTO hook_rooms AS h (room_id, noted_seq, done_seq, noted_at)
        SELECT a.room_id, a.seq, coalesce(i.indexed_seq, 0), chat_now(NULL)
        FROM unnest(_done_rooms, _done_seqs) AS a (room_id, seq)
        LEFT JOIN indexed_rooms i ON i.room_id = a.room_id
        ORDER BY a.room_id
        ON CONFLICT (room_id) DO UPDATE SET noted_seq = excluded.noted_seq,
            noted_at = CASE WHEN h.noted_seq > h.done_seq THEN h.noted_at ELSE excluded.noted_at END
        WHERE h.noted_seq < excluded.noted_seq;
    END IF;
    INSERT INTO indexed_rooms AS i (room_id, indexed_seq)
    SELECT a.room_id, a.seq FROM unnest(_done_rooms, _done_seqs) AS a (room_id, seq)
    ORDER BY a.room_id
    ON CONFLICT (room_id) DO UPDATE
    SET indexed_seq = greatest(i.indexed_seq, excluded.indexed_seq);
END $$;

-- Moves the worker's place in a room, if it is where the caller saw it, and with it writes whom to tell.
CREATE FUNCTION hook_decided(
    _clock bigint, _room uuid, _from bigint, _to bigint, _ids uuid[], _types text[], _users uuid[],
    _seqs bigint[], _datas text[], _noted_at bigint
) RETURNS boolean
LANGUAGE plpgsql VOLATILE AS $$
DECLARE
    _now bigint := chat_now(_clock);
BEGIN
    UPDATE hook_rooms h SET done_seq = _to, noted_at = _noted_at
    WHERE h.room_id = _room AND h.done_seq = _from;
    IF NOT FOUND THEN
        RETURN false;
    END IF;
    INSERT INTO hook_outbox (webhook_id, type, room_id, user_id, seq, created_at, data)
    SELECT a.id, a.type, _room, a.user_id, a.seq, _now, a.data
    FROM unnest(_ids, _types, _users, _seqs, _datas) WITH ORDINALITY AS a (id, type, user_id, seq, data, n)
    ORDER BY a.n;
    RETURN true;
END $$;

-- Takes note of an attempt. 0: it failed and is made again; 1: it was delivered; 2: it failed and was the last; 3: it
-- is not wanted any more. A push that may have come is remembered, so that it is taken back when it is read; what
-- holds text of messages is not kept.
CREATE FUNCTION hook_attempted(
    _clock bigint, _id uuid, _outcome integer, _status integer, _error text, _next_at bigint
) RETURNS void
LANGUAGE plpgsql VOLATILE AS $$
DECLARE
    _now bigint := chat_now(_clock);
    _old hook_outbox;
BEGIN
    SELECT * INTO _old FROM hook_outbox o WHERE o.webhook_id = _id AND o.state = 0 FOR UPDATE;
    IF NOT FOUND THEN
        RETURN;
    END IF;
    IF _old.type = 'push.required' AND (_outcome = 1 OR _outcome = 3 AND _old.attempts > 0) THEN
        INSERT INTO hook_pushed AS p (room_id, user_id, seq)
        VALUES (_old.room_id, _old.user_id, _old.seq)
        ON CONFLICT (room_id, user_id) DO UPDATE SET seq = greatest(p.seq, excluded.seq);
    END IF;
    IF _outcome = 3 OR _outcome = 1 AND _old.user_id IS NOT NULL THEN
        DELETE FROM hook_outbox o WHERE o.n = _old.n;
        RETURN;
    END IF;
    UPDATE hook_outbox o SET attempts = o.attempts + 1, status = _status, error = _error,
        next_at = _next_at, state = _outcome, ended_at = CASE WHEN _outcome > 0 THEN _now END
    WHERE o.n = _old.n;
END $$;

-- A push is taken back: once.
CREATE FUNCTION hook_take_back(
    _clock bigint, _room uuid, _user uuid, _seq bigint, _id uuid, _type text, _data text
) RETURNS boolean
LANGUAGE plpgsql VOLATILE AS $$
BEGIN
    DELETE FROM hook_pushed p WHERE p.room_id = _room AND p.user_id = _user AND p.seq = _seq;
    IF NOT FOUND THEN
        RETURN false;
    END IF;
    INSERT INTO hook_outbox (webhook_id, type, room_id, user_id, seq, created_at, data)
    VALUES (_id, _type, _room, _user, _seq, chat_now(_clock), _data);
    RETURN true;
END $$;

-- A report that a user made, in its own transaction. Reports are rare, and no send fires this.
CREATE FUNCTION hook_reported() RETURNS trigger
LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO hook_outbox (webhook_id, type, room_id, created_at, data)
    SELECT gen_random_uuid(), 'message.reported', NEW.room_id, NEW.created_at, jsonb_build_object(
        'report_id', replace(NEW.room_id::text, '-', '') || '-' || NEW.message_seq || '-'
            || replace(NEW.reporter_id::text, '-', ''),
        'room_id', NEW.room_id, 'message_seq', NEW.message_seq, 'revision', NEW.revision,
        'reporter_id', NEW.reporter_id, 'sender_id', m.sender_id)::text
    FROM messages m
    WHERE m.room_id = NEW.room_id AND m.seq = NEW.message_seq AND hook_wanted(NEW.created_at);
    RETURN NULL;
END $$;

CREATE TRIGGER message_reports_are_told AFTER INSERT ON message_reports
    FOR EACH ROW EXECUTE FUNCTION hook_reported();

-- As before, and tells that there is a new room.
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
    IF hook_wanted(_now) THEN
        INSERT INTO hook_outbox (webhook_id, type, room_id, created_at, data)
        VALUES (gen_random_uuid(), 'room.created', _room, _now, jsonb_build_object(
            'room_id', _room, 'kind', _kind, 'title', _title, 'created_by', _actor,
            'member_count', cardinality(_all), 'member_ids', to_jsonb(_all[1:_shown_max]))::text);
    END IF;
    RETURN NEXT;
END $$;
