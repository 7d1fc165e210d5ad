-- The core of chat: users, rooms, messages, members, watermarks.
--
-- Ids are UUIDs as 16-byte blobs, times are integer ms since 1970, every table is clustered by its
-- primary key. There are no foreign keys: all writes go through one thread whose rules already
-- read the rows that a key would check, and each check would cost the hot path a look-up more.

CREATE TABLE meta (
    one      INTEGER PRIMARY KEY CHECK (one = 1),
    -- Identity of this history: 64 random bits.
    epoch    INTEGER NOT NULL,
    -- Key of `body_hash`, so that a hash kept after an erase tells nothing about the body.
    hash_key BLOB NOT NULL CHECK (length(hash_key) = 32)
) STRICT;

-- Users, cached from their tokens.
CREATE TABLE chat_users (
    user_id    BLOB NOT NULL PRIMARY KEY CHECK (length(user_id) = 16),
    name       TEXT NOT NULL,
    picture    TEXT,
    -- Rises with every change of the user's rooms.
    version    INTEGER NOT NULL,
    -- Rooms the user is a member of; bounded, so that it is checked without counting.
    room_count INTEGER NOT NULL CHECK (room_count >= 0),
    created_at INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

-- A room's newest event, and with it `last_seq` and the time of its last activity, is its last row
-- in `messages` or in `room_events`: kept here as well, each send would dirty a page more.
CREATE TABLE chat_rooms (
    room_id      BLOB NOT NULL PRIMARY KEY CHECK (length(room_id) = 16),
    kind         TEXT NOT NULL CHECK (kind IN ('direct', 'group')),
    title        TEXT,
    created_by   BLOB NOT NULL CHECK (length(created_by) = 16),
    created_at   INTEGER NOT NULL,
    member_count INTEGER NOT NULL CHECK (member_count >= 0),
    -- Keyed hash of what the room was first opened with.
    body_hash    BLOB NOT NULL CHECK (length(body_hash) = 16)
) STRICT, WITHOUT ROWID;

-- Messages in their current state, those of kind `system` included: by room, so that a page of a
-- history is a few neighbouring pages on disk. What is read without the text stands before it.
CREATE TABLE messages (
    room_id       BLOB NOT NULL,
    -- The event that created it: its identity.
    seq           INTEGER NOT NULL,
    sender_id     BLOB NOT NULL,
    kind          TEXT NOT NULL,
    -- The last event that changed it; equal to `seq` until then.
    changed_seq   INTEGER NOT NULL,
    revision      INTEGER NOT NULL,
    created_at    INTEGER NOT NULL,
    edited_at     INTEGER,
    deleted_at    INTEGER,
    reply_to_seq  INTEGER,
    -- NULL for system messages.
    client_msg_id BLOB,
    -- Keyed hash of the original body; alone decides whether a retry is the same message.
    body_hash     BLOB,
    -- For system messages: the type and data of the event, as JSON.
    event         TEXT,
    -- Who is named in it: a JSON array of ids and "all"; NULL: nobody.
    mentions      TEXT,
    -- How often each emoji was put: a JSON object of counts; NULL: none.
    reactions     TEXT,
    text          TEXT,
    PRIMARY KEY (room_id, seq)
) STRICT, WITHOUT ROWID;

-- One message per (room, sender, client_msg_id), for good. The id comes first because clients make
-- UUIDv7, which grow with time: the inserts of all rooms then meet on the index's last pages,
-- instead of dirtying a page per room and sender.
CREATE UNIQUE INDEX messages_once ON messages (client_msg_id, sender_id, room_id)
    WHERE client_msg_id IS NOT NULL;

-- Messages that changed since they were created. Those that did not are found by the primary key,
-- so a send pays nothing for this index.
CREATE INDEX messages_changed ON messages (room_id, changed_seq) WHERE changed_seq <> seq;

-- Members, and who once was one (`left_seq` is not null).
CREATE TABLE room_participants (
    room_id    BLOB NOT NULL CHECK (length(room_id) = 16),
    user_id    BLOB NOT NULL CHECK (length(user_id) = 16),
    role       TEXT NOT NULL CHECK (role IN ('member', 'admin', 'owner')),
    -- Of the latest stay.
    joined_seq INTEGER NOT NULL,
    joined_at  INTEGER NOT NULL,
    left_seq   INTEGER,
    left_at    INTEGER,
    PRIMARY KEY (room_id, user_id)
) STRICT, WITHOUT ROWID;

-- The rooms of a user.
CREATE INDEX room_participants_of_user ON room_participants (user_id, room_id)
    WHERE left_seq IS NULL;

-- The members of a room, longest-serving first.
CREATE INDEX room_participants_by_service ON room_participants (room_id, joined_seq, user_id)
    WHERE left_seq IS NULL;

-- Watermarks per room and user, but for `read_marks_pending`; `delivered_seq` is never below
-- `read_seq`. Neither ever decreases.
CREATE TABLE message_read_status (
    room_id       BLOB NOT NULL CHECK (length(room_id) = 16),
    user_id       BLOB NOT NULL CHECK (length(user_id) = 16),
    read_seq      INTEGER NOT NULL,
    delivered_seq INTEGER NOT NULL,
    PRIMARY KEY (room_id, user_id)
) STRICT, WITHOUT ROWID;

-- Watermarks that sends advanced, not yet in `message_read_status`: a watermark is the greater of
-- both. One row per commit, appended; a mark is the room, the user, and the seq (8 bytes,
-- big-endian), 40 bytes. A send then dirties the last page of this table, which all sends share,
-- instead of a page of `message_read_status`.
CREATE TABLE read_marks_pending (
    n     INTEGER PRIMARY KEY,
    marks BLOB NOT NULL
) STRICT;

-- Events that are no message of their own: changes of messages. One small row each, without text, so
-- that no `seq` is missing when events are told again. A room's newest row stays for good.
CREATE TABLE room_events (
    room_id     BLOB NOT NULL CHECK (length(room_id) = 16),
    seq         INTEGER NOT NULL,
    ts          INTEGER NOT NULL,
    type        TEXT NOT NULL,
    message_seq INTEGER NOT NULL,
    actor_id    BLOB NOT NULL CHECK (length(actor_id) = 16),
    -- What the columns do not say, as JSON.
    data        TEXT,
    PRIMARY KEY (room_id, seq)
) STRICT, WITHOUT ROWID;

-- Who put which emoji on what; counted in `messages.reactions`.
CREATE TABLE message_reactions (
    room_id     BLOB NOT NULL CHECK (length(room_id) = 16),
    message_seq INTEGER NOT NULL,
    user_id     BLOB NOT NULL CHECK (length(user_id) = 16),
    emoji       TEXT NOT NULL,
    PRIMARY KEY (room_id, message_seq, user_id, emoji)
) STRICT, WITHOUT ROWID;

-- Pinned messages.
CREATE TABLE room_pins (
    room_id     BLOB NOT NULL CHECK (length(room_id) = 16),
    message_seq INTEGER NOT NULL,
    -- The event that pinned it.
    pinned_seq  INTEGER NOT NULL,
    pinned_by   BLOB NOT NULL CHECK (length(pinned_by) = 16),
    pinned_at   INTEGER NOT NULL,
    PRIMARY KEY (room_id, message_seq)
) STRICT, WITHOUT ROWID;

-- Messages that users reported, for those who run the service.
CREATE TABLE message_reports (
    room_id     BLOB NOT NULL CHECK (length(room_id) = 16),
    message_seq INTEGER NOT NULL,
    reporter_id BLOB NOT NULL CHECK (length(reporter_id) = 16),
    -- What the reporter saw.
    revision    INTEGER NOT NULL,
    created_at  INTEGER NOT NULL,
    PRIMARY KEY (room_id, message_seq, reporter_id)
) STRICT, WITHOUT ROWID;
