-- Webhooks of other services, as they came, and what the Main App says of accounts by them.

-- What came, once each, and what it was answered.
CREATE TABLE webhook_inbox (
    source      TEXT NOT NULL CHECK (source IN ('map', 'main-app')),
    webhook_id  TEXT NOT NULL,
    signed_at   INTEGER NOT NULL,
    received_at INTEGER NOT NULL,
    -- The bytes that were signed.
    body        BLOB NOT NULL,
    -- The HTTP answer; NULL: nothing was done for it yet.
    status      INTEGER,
    answer      TEXT,
    answered_at INTEGER,
    -- How often it was done again by those who run the service.
    replays     INTEGER NOT NULL DEFAULT 0,
    PRIMARY KEY (source, webhook_id)
) STRICT, WITHOUT ROWID;

CREATE INDEX webhook_inbox_by_time ON webhook_inbox (received_at, source, webhook_id);

-- What the Main App says of an account.
-- Of the newest profile that it told; 0: none, and what tokens say counts.
ALTER TABLE chat_users ADD COLUMN profile_version INTEGER NOT NULL DEFAULT 0;
-- When it was written here.
ALTER TABLE chat_users ADD COLUMN profile_at INTEGER;
-- Of the newest word on whether it is suspended.
ALTER TABLE chat_users ADD COLUMN standing_version INTEGER NOT NULL DEFAULT 0;
ALTER TABLE chat_users ADD COLUMN suspended INTEGER NOT NULL DEFAULT 0;
-- The Main App has no such account any more.
ALTER TABLE chat_users ADD COLUMN gone INTEGER NOT NULL DEFAULT 0;
-- Tokens that were issued until then are no good, and the user's version that was made by it.
ALTER TABLE chat_users ADD COLUMN revoked_until INTEGER;
ALTER TABLE chat_users ADD COLUMN revoked_version INTEGER;

-- For nodes that want to know what was told lately.
CREATE INDEX chat_users_profiles ON chat_users (profile_at, user_id) WHERE profile_at IS NOT NULL;

-- Sessions of the Main App whose tokens are no good, as long as they could be.
CREATE TABLE revoked_sessions (
    user_id    BLOB NOT NULL CHECK (length(user_id) = 16),
    -- Hash of the session's name.
    sid        BLOB NOT NULL CHECK (length(sid) = 16),
    kept_until INTEGER NOT NULL,
    PRIMARY KEY (user_id, sid)
) STRICT, WITHOUT ROWID;

CREATE INDEX revoked_sessions_by_time ON revoked_sessions (kept_until);
