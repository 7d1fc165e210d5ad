-- For those who run the service: an audit trail of what they do, how reports were settled, and what ended
-- sessions.

-- What ended sessions of a user: those that began with an earlier `version` of theirs.
CREATE TABLE user_ends (
    user_id  uuid NOT NULL,
    -- The user's version that was made by it.
    version  bigint NOT NULL,
    -- The close code.
    code     integer NOT NULL,
    ended_at bigint NOT NULL,
    PRIMARY KEY (user_id, version)
);

-- What was done with service tokens. It only grows.
CREATE TABLE admin_audit (
    n          bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    -- Of the act, which may come to the store more than once.
    act_id     uuid NOT NULL UNIQUE,
    at         bigint NOT NULL,
    -- Fingerprint of the token.
    who        text NOT NULL,
    node       text NOT NULL,
    request_id text NOT NULL,
    act        text NOT NULL,
    target     text,
    detail     text,
    outcome    text NOT NULL
);

CREATE FUNCTION admin_audit_only_grows() RETURNS trigger
LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION 'admin_audit only grows';
END $$;

CREATE TRIGGER admin_audit_is_never_changed BEFORE UPDATE OR DELETE OR TRUNCATE ON admin_audit
    FOR EACH STATEMENT EXECUTE FUNCTION admin_audit_only_grows();

-- How a report was settled; NULL: it is open.
ALTER TABLE message_reports
    ADD COLUMN resolution text CHECK (resolution IN ('dismissed', 'deleted')),
    ADD COLUMN resolved_at bigint,
    -- Fingerprint of the token.
    ADD COLUMN resolved_by text,
    ADD COLUMN note text;

CREATE INDEX message_reports_open
    ON message_reports (created_at, room_id, message_seq, reporter_id) WHERE resolution IS NULL;
CREATE INDEX message_reports_by_time
    ON message_reports (created_at, room_id, message_seq, reporter_id);

-- The database's time, unless the program says another (`_clock`).
CREATE FUNCTION chat_now(_clock bigint) RETURNS bigint
LANGUAGE sql VOLATILE AS $$
    SELECT coalesce(_clock, floor(extract(epoch FROM clock_timestamp()) * 1000)::bigint)
$$;

-- Notes an act; whether it was not there yet.
CREATE FUNCTION admin_note(_now bigint, _act jsonb, _outcome text) RETURNS boolean
LANGUAGE plpgsql VOLATILE AS $$
BEGIN
    INSERT INTO admin_audit (act_id, at, who, node, request_id, act, target, detail, outcome)
    VALUES ((_act->>'id')::uuid, _now, _act->>'who', _act->>'node', _act->>'request_id',
        _act->>'act', _act->>'target', _act->>'detail', _outcome)
    ON CONFLICT (act_id) DO NOTHING;
    RETURN FOUND;
END $$;

-- Ends all sessions of a user that began before: their version by it; NULL: there is no such user. What ended
-- sessions earlier ends none that this one does not.
CREATE FUNCTION chat_end_sessions(_now bigint, _user uuid, _code integer) RETURNS bigint
LANGUAGE plpgsql VOLATILE AS $$
DECLARE
    _version bigint;
BEGIN
    UPDATE chat_users u SET version = u.version + 1 WHERE u.user_id = _user
    RETURNING u.version INTO _version;
    IF _version IS NOT NULL THEN
        DELETE FROM user_ends e WHERE e.user_id = _user;
        INSERT INTO user_ends (user_id, version, code, ended_at)
        VALUES (_user, _version, _code, _now);
    END IF;
    RETURN _version;
END $$;

-- The same by those who run the service. Asked again, it tells what there is.
CREATE FUNCTION admin_end_sessions(_clock bigint, _user uuid, _code integer, _act jsonb) RETURNS bigint
LANGUAGE plpgsql VOLATILE AS $$
DECLARE
    _now bigint := chat_now(_clock);
BEGIN
    -- Who ends sessions of the same user waits here, and sees what the other did.
    PERFORM FROM chat_users u WHERE u.user_id = _user FOR NO KEY UPDATE;
    IF NOT FOUND THEN
        RETURN NULL;
    END IF;
    IF NOT admin_note(_now, _act, 'done') THEN
        RETURN (SELECT max(e.version) FROM user_ends e WHERE e.user_id = _user);
    END IF;
    RETURN chat_end_sessions(_now, _user, _code);
END $$;

-- Settles a report without doing anything about the message; whether it was open. NULL: there is none.
CREATE FUNCTION admin_dismiss(_clock bigint, _room uuid, _message_seq bigint, _reporter uuid, _act jsonb)
RETURNS boolean
LANGUAGE plpgsql VOLATILE AS $$
DECLARE
    _now bigint := chat_now(_clock);
    _old message_reports;
BEGIN
    SELECT * INTO _old FROM message_reports x
    WHERE x.room_id = _room AND x.message_seq = _message_seq AND x.reporter_id = _reporter
    FOR NO KEY UPDATE;
    IF _old.room_id IS NULL THEN
        RETURN NULL;
    END IF;
    IF admin_note(_now, _act, CASE WHEN _old.resolution IS NULL THEN 'done' ELSE 'unchanged' END)
        AND _old.resolution IS NULL
    THEN
        UPDATE message_reports x SET resolution = 'dismissed', resolved_at = _now,
            resolved_by = _act->>'who', note = _act->>'detail'
        WHERE x.room_id = _room AND x.message_seq = _message_seq AND x.reporter_id = _reporter;
        RETURN true;
    END IF;
    RETURN false;
END $$;

-- As in 0005; beside it, what the service does as a moderator: any message of a person, by no member, noted in
-- the audit trail, and with all reports of the message settled.
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
