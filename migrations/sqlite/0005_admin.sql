-- For those who run the service: an audit trail of what they do, how reports were settled, and what ended
-- sessions.

-- What ended sessions of a user: those that began with an earlier `version` of theirs.
CREATE TABLE user_ends (
    user_id  BLOB NOT NULL CHECK (length(user_id) = 16),
    -- The user's version that was made by it.
    version  INTEGER NOT NULL,
    -- The close code.
    code     INTEGER NOT NULL,
    ended_at INTEGER NOT NULL,
    PRIMARY KEY (user_id, version)
) STRICT, WITHOUT ROWID;

-- What was done with service tokens. It only grows.
CREATE TABLE admin_audit (
    n          INTEGER PRIMARY KEY AUTOINCREMENT,
    -- Of the act, which may come to the store more than once.
    act_id     BLOB NOT NULL UNIQUE CHECK (length(act_id) = 16),
    at         INTEGER NOT NULL,
    -- Fingerprint of the token.
    who        TEXT NOT NULL,
    node       TEXT NOT NULL,
    request_id TEXT NOT NULL,
    act        TEXT NOT NULL,
    target     TEXT,
    detail     TEXT,
    outcome    TEXT NOT NULL
) STRICT;

CREATE TRIGGER admin_audit_is_never_changed BEFORE UPDATE ON admin_audit
BEGIN
    SELECT RAISE(ABORT, 'admin_audit only grows');
END;

CREATE TRIGGER admin_audit_is_never_deleted BEFORE DELETE ON admin_audit
BEGIN
    SELECT RAISE(ABORT, 'admin_audit only grows');
END;

-- How a report was settled; NULL: it is open.
ALTER TABLE message_reports ADD COLUMN resolution TEXT CHECK (resolution IN ('dismissed', 'deleted'));
ALTER TABLE message_reports ADD COLUMN resolved_at INTEGER;
-- Fingerprint of the token.
ALTER TABLE message_reports ADD COLUMN resolved_by TEXT;
ALTER TABLE message_reports ADD COLUMN note TEXT;

CREATE INDEX message_reports_open
    ON message_reports (created_at, room_id, message_seq, reporter_id) WHERE resolution IS NULL;
CREATE INDEX message_reports_by_time
    ON message_reports (created_at, room_id, message_seq, reporter_id);
