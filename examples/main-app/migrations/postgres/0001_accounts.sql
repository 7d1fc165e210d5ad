-- Who people are. Ids are UUIDs, times ms since 1970.
CREATE TABLE users (
    id          TEXT PRIMARY KEY,
    -- NULL once the account is deleted: the address is free again.
    email       TEXT UNIQUE,
    name        TEXT NOT NULL,
    picture     TEXT,
    status      TEXT NOT NULL CHECK (status IN ('active', 'suspended', 'deleted')),
    -- Raised by every change that others are told of, so that an older event is known as such.
    version     BIGINT NOT NULL,
    invited_by  TEXT REFERENCES users (id),
    created_at  BIGINT NOT NULL
);

CREATE TABLE user_preferences (
    user_id  TEXT NOT NULL REFERENCES users (id),
    key      TEXT NOT NULL,
    value    TEXT NOT NULL,
    PRIMARY KEY (user_id, key)
);

-- A friend invites a friend.
CREATE TABLE invitations (
    code        TEXT PRIMARY KEY,
    inviter_id  TEXT NOT NULL REFERENCES users (id),
    created_at  BIGINT NOT NULL,
    expires_at  BIGINT NOT NULL,
    used_by     TEXT REFERENCES users (id)
);
CREATE INDEX invitations_inviter ON invitations (inviter_id);

-- Codes that prove an address. With a name: for who signs up.
CREATE TABLE verification_codes (
    id          TEXT PRIMARY KEY,
    email       TEXT NOT NULL,
    name        TEXT,
    invitation  TEXT,
    code_hash   TEXT NOT NULL,
    attempts    BIGINT NOT NULL,
    created_at  BIGINT NOT NULL,
    expires_at  BIGINT NOT NULL,
    used_at     BIGINT
);
CREATE INDEX verification_codes_email ON verification_codes (email, created_at);

CREATE TABLE sessions (
    id           TEXT PRIMARY KEY,
    user_id      TEXT NOT NULL REFERENCES users (id),
    secret_hash  TEXT NOT NULL,
    created_at   BIGINT NOT NULL,
    expires_at   BIGINT NOT NULL,
    revoked_at   BIGINT
);
CREATE INDEX sessions_user ON sessions (user_id);

-- At any time one key is 'next', one 'current', and earlier ones 'previous' while tokens of theirs are valid.
CREATE TABLE signing_keys (
    kid         TEXT PRIMARY KEY,
    pkcs8       TEXT NOT NULL,
    public      TEXT NOT NULL,
    state       TEXT NOT NULL CHECK (state IN ('next', 'current', 'previous')),
    retired_at  BIGINT
);
CREATE UNIQUE INDEX signing_keys_one ON signing_keys (state) WHERE state <> 'previous';

-- See examples/kit/src/outbox.rs. `answer` is what the receiver said.
CREATE TABLE webhook_outbox (
    id            TEXT PRIMARY KEY,
    subject       TEXT NOT NULL,
    body          TEXT NOT NULL,
    created_at    BIGINT NOT NULL,
    next_at       BIGINT NOT NULL,
    attempts      BIGINT NOT NULL,
    delivered_at  BIGINT,
    answer        TEXT,
    last_error    TEXT
);
CREATE INDEX webhook_outbox_due ON webhook_outbox (next_at) WHERE delivered_at IS NULL;
