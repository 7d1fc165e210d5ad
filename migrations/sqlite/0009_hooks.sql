-- Webhooks out: what other services are told, and what is left to be told. See the migration of PostgreSQL.

-- Who works, and whether anybody wants to be told.
CREATE TABLE hook_state (
    one          INTEGER PRIMARY KEY CHECK (one = 1),
    holder       BLOB,
    -- Until then causes are noted. A worker moves it on as long as there is one.
    wanted_until INTEGER NOT NULL DEFAULT 0,
    -- What was written before is not told.
    since        INTEGER NOT NULL DEFAULT 0,
    -- The receiver answered 410: nothing is sent until an operator says so.
    disabled_at  INTEGER
) STRICT;

INSERT INTO hook_state (one) VALUES (1);

-- Up to which event a room was seen, and up to which it was decided whom to tell.
CREATE TABLE hook_rooms (
    room_id   BLOB NOT NULL PRIMARY KEY CHECK (length(room_id) = 16),
    noted_seq INTEGER NOT NULL,
    done_seq  INTEGER NOT NULL,
    -- Since when there is something to be decided, or when it was looked at last.
    noted_at  INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

CREATE INDEX hook_rooms_due ON hook_rooms (room_id) WHERE noted_seq > done_seq;

-- What is to be told. In a room the order is that of `n`.
CREATE TABLE hook_outbox (
    n          INTEGER PRIMARY KEY AUTOINCREMENT,
    webhook_id BLOB NOT NULL UNIQUE CHECK (length(webhook_id) = 16),
    type       TEXT NOT NULL,
    room_id    BLOB NOT NULL CHECK (length(room_id) = 16),
    -- Of a push: whose, and of which message.
    user_id    BLOB,
    seq        INTEGER,
    created_at INTEGER NOT NULL,
    -- `data` of the body, as it is sent: never changed.
    data       TEXT NOT NULL,
    -- 0 waits, 1 delivered, 2 given up.
    state      INTEGER NOT NULL DEFAULT 0,
    attempts   INTEGER NOT NULL DEFAULT 0,
    next_at    INTEGER NOT NULL DEFAULT 0,
    status     INTEGER,
    error      TEXT,
    ended_at   INTEGER
) STRICT;

CREATE INDEX hook_outbox_waiting ON hook_outbox (next_at, n) WHERE state = 0;
CREATE INDEX hook_outbox_of_room ON hook_outbox (room_id, n) WHERE state = 0;
CREATE INDEX hook_outbox_ended ON hook_outbox (ended_at) WHERE state <> 0;

-- Pushes that were sent and not read since: the newest of each user and room.
CREATE TABLE hook_pushed (
    room_id BLOB NOT NULL CHECK (length(room_id) = 16),
    user_id BLOB NOT NULL CHECK (length(user_id) = 16),
    seq     INTEGER NOT NULL,
    PRIMARY KEY (room_id, user_id)
) STRICT, WITHOUT ROWID;
