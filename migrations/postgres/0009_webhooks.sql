-- Webhooks of other services, as they came, and what the Main App says of accounts by them.

-- What came, once each, and what it was answered.
CREATE TABLE webhook_inbox (
    source      text COLLATE "C" NOT NULL CHECK (source IN ('map', 'main-app')),
    webhook_id  text COLLATE "C" NOT NULL,
    signed_at   bigint NOT NULL,
    received_at bigint NOT NULL,
    -- The bytes that were signed.
    body        bytea NOT NULL,
    -- The HTTP answer; NULL: nothing was done for it yet.
    status      integer,
    answer      text,
    answered_at bigint,
    -- How often it was done again by those who run the service.
    replays     integer NOT NULL DEFAULT 0,
    PRIMARY KEY (source, webhook_id)
);

CREATE INDEX webhook_inbox_by_time ON webhook_inbox (received_at, source, webhook_id);

-- Takes note of a webhook; what is known of it then.
CREATE FUNCTION webhook_take(
    _clock bigint, _source text, _id text, _signed_at bigint, _body bytea, _kept bigint
) RETURNS TABLE (is_same boolean, status integer, answer text)
LANGUAGE plpgsql VOLATILE AS $$
#variable_conflict use_column
DECLARE
    _now bigint := chat_now(_clock);
BEGIN
    INSERT INTO webhook_inbox (source, webhook_id, signed_at, received_at, body)
    VALUES (_source, _id, _signed_at, _now, _body)
    ON CONFLICT (source, webhook_id) DO NOTHING;
    IF FOUND THEN
        -- Two go for each that comes, so old ones get fewer.
        DELETE FROM webhook_inbox w USING (
            SELECT o.source, o.webhook_id FROM webhook_inbox o
            WHERE o.received_at < _now - _kept AND o.status IS NOT NULL
            ORDER BY o.received_at LIMIT 2 FOR UPDATE SKIP LOCKED
        ) o
        WHERE w.source = o.source AND w.webhook_id = o.webhook_id;
    END IF;
    RETURN QUERY SELECT w.body = _body, w.status, w.answer FROM webhook_inbox w
    WHERE w.source = _source AND w.webhook_id = _id;
END $$;

-- What the Main App says of an account.
ALTER TABLE chat_users
    -- Of the newest profile that it told; 0: none, and what tokens say counts.
    ADD COLUMN profile_version bigint NOT NULL DEFAULT 0,
    -- When it was written here.
    ADD COLUMN profile_at bigint,
    -- Of the newest word on whether it is suspended.
    ADD COLUMN standing_version bigint NOT NULL DEFAULT 0,
    ADD COLUMN suspended boolean NOT NULL DEFAULT false,
    -- The Main App has no such account any more.
    ADD COLUMN gone boolean NOT NULL DEFAULT false,
    -- Tokens that were issued until then are no good, and the user's version that was made by it.
    ADD COLUMN revoked_until bigint,
    ADD COLUMN revoked_version bigint;

-- For nodes that want to know what was told lately.
CREATE INDEX chat_users_profiles ON chat_users (profile_at, user_id) WHERE profile_at IS NOT NULL;

-- Sessions of the Main App whose tokens are no good, as long as they could be.
CREATE TABLE revoked_sessions (
    user_id    uuid NOT NULL,
    -- Hash of the session's name.
    sid        uuid NOT NULL,
    kept_until bigint NOT NULL,
    PRIMARY KEY (user_id, sid)
);

CREATE INDEX revoked_sessions_by_time ON revoked_sessions (kept_until);

-- Does what the Main App says of an account; whether that changed anything. What is older than what is known
-- changes nothing, and what ends sessions raises the user's version.
CREATE FUNCTION chat_sync_account(
    _clock bigint, _user uuid, _version bigint, _what text, _name text, _picture text,
    _suspended boolean, _sid uuid, _until bigint
) RETURNS boolean
LANGUAGE plpgsql VOLATILE AS $$
DECLARE
    _now bigint := chat_now(_clock);
    _old chat_users;
    _changed boolean := false;
    _ends boolean := false;
BEGIN
    INSERT INTO chat_users (user_id, name, version, room_count, created_at)
    VALUES (_user, '', 1, 0, _now) ON CONFLICT (user_id) DO NOTHING;
    -- Who says something of the same user waits here, and sees what the other did.
    SELECT * INTO _old FROM chat_users u WHERE u.user_id = _user FOR NO KEY UPDATE;
    IF _old.gone THEN
        RETURN false;
    END IF;
    IF _what = 'profile' AND _version > _old.profile_version THEN
        UPDATE chat_users u SET name = coalesce(_name, u.name), picture = _picture,
            profile_version = _version, profile_at = _now
        WHERE u.user_id = _user;
        _changed := true;
    END IF;
    IF _suspended IS NOT NULL AND _version > _old.standing_version THEN
        UPDATE chat_users u SET suspended = _suspended, standing_version = _version
        WHERE u.user_id = _user;
        _changed := _changed OR _suspended <> _old.suspended;
        _ends := _suspended AND NOT _old.suspended;
    END IF;
    IF _what = 'deleted' THEN
        UPDATE chat_users u SET gone = true WHERE u.user_id = _user;
        _ends := true;
    ELSIF _what = 'revoked' AND _sid IS NOT NULL THEN
        DELETE FROM revoked_sessions r USING (
            SELECT o.user_id, o.sid FROM revoked_sessions o WHERE o.kept_until < _now
            ORDER BY o.kept_until LIMIT 2 FOR UPDATE SKIP LOCKED
        ) o
        WHERE r.user_id = o.user_id AND r.sid = o.sid;
        INSERT INTO revoked_sessions AS r (user_id, sid, kept_until) VALUES (_user, _sid, _until)
        ON CONFLICT (user_id, sid) DO UPDATE SET kept_until = excluded.kept_until
        WHERE r.kept_until < excluded.kept_until;
        _ends := FOUND;
    ELSIF _what = 'revoked' AND _until > coalesce(_old.revoked_until, 0) THEN
        UPDATE chat_users u SET revoked_until = _until, revoked_version = u.version + 1
        WHERE u.user_id = _user;
        _ends := true;
    END IF;
    IF _ends THEN
        UPDATE chat_users u SET version = u.version + 1 WHERE u.user_id = _user;
    END IF;
    RETURN _changed OR _ends;
END $$;

-- What ends sessions of a user, also such as are yet to begin, each as version, code, which, session, time. Which 0:
-- those that began before the version; 1: those of this session of the Main App; 2: those whose token was issued until
-- then, and where it does not say when, that began before the version. NULL: nothing.
CREATE FUNCTION chat_ends_json(_user uuid) RETURNS text
LANGUAGE sql STABLE AS $$
    SELECT json_agg(e.one)::text FROM (
        SELECT json_build_array(x.version, x.code, 0, NULL, NULL) AS one
        FROM user_ends x WHERE x.user_id = _user
        UNION ALL
        SELECT json_build_array(
            9223372036854775807, CASE WHEN u.gone THEN 4011 ELSE 4003 END, 0, NULL, NULL)
        FROM chat_users u WHERE u.user_id = _user AND (u.suspended OR u.gone)
        UNION ALL
        SELECT json_build_array(u.revoked_version, 4001, 2, NULL, u.revoked_until)
        FROM chat_users u WHERE u.user_id = _user AND u.revoked_until IS NOT NULL
        UNION ALL
        -- Those that are kept for longer than they need be are of tokens that have ended.
        SELECT json_build_array(9223372036854775807, 4001, 1, r.sid, NULL)
        FROM revoked_sessions r WHERE r.user_id = _user
    ) e
$$;
