-- The core of chat: users, rooms, messages, members, watermarks, blocks, typing.
--
-- Ids are `uuid`. Times are `bigint` ms since 1970: the unit of the protocol and of the core, compared
-- as they are, with no conversion and no time zone between. There are no foreign keys: every write
-- already reads the rows that a key would check, under the lock of their room.
--
-- Locks. Whatever gives a `seq` or changes who is a member first locks the rows of its rooms in
-- `chat_rooms`, in the order of their ids, then the rows of the users it counts in `chat_users`, in the
-- order of theirs, and only then looks. Rows of `messages`, `room_events`,
-- `message_reactions`, `room_pins`, `room_participants` and `message_read_status` are written only by who
-- holds the room's lock.

CREATE TABLE meta (
    one      smallint PRIMARY KEY CHECK (one = 1),
    -- Identity of this history: 64 random bits. A node joins it with the system identifier and the
    -- timeline of the server, so that a promoted replica and a restored backup are another history.
    epoch    bigint NOT NULL,
    -- Key of `body_hash`, so that a hash kept after an erase tells nothing about the body.
    hash_key bytea NOT NULL CHECK (octet_length(hash_key) = 32)
);

-- Users, cached from their tokens.
CREATE TABLE chat_users (
    user_id    uuid PRIMARY KEY,
    name       text NOT NULL,
    picture    text,
    -- Rises with every change of the user's rooms.
    version    bigint NOT NULL,
    -- Rooms the user is a member of; bounded, so that it is checked without counting.
    room_count integer NOT NULL CHECK (room_count >= 0),
    created_at bigint NOT NULL
) WITH (fillfactor = 80);

-- Rooms. Every event of a room writes its row, which is the room's lock: half of each page is left
-- free, so that the new version of a row finds place beside the old one and no index is touched.
CREATE TABLE chat_rooms (
    room_id      uuid PRIMARY KEY,
    kind         text NOT NULL CHECK (kind IN ('direct', 'group')),
    title        text,
    created_by   uuid NOT NULL,
    created_at   bigint NOT NULL,
    member_count integer NOT NULL CHECK (member_count >= 0),
    -- The newest event, and its time. 0: the room is being opened, seen only by who opens it.
    last_seq     bigint NOT NULL,
    last_ts      bigint NOT NULL,
    -- Keyed hash of what the room was first opened with.
    body_hash    bytea NOT NULL CHECK (octet_length(body_hash) = 16)
) WITH (fillfactor = 50);

-- Messages in their current state, those of kind `system` included. Partitioned from the first day:
-- keys that hold the room's id are the price of being able to spread the partitions over servers, and
-- it cannot be paid later.
CREATE TABLE messages (
    room_id       uuid NOT NULL,
    -- The event that created it: its identity.
    seq           bigint NOT NULL,
    sender_id     uuid NOT NULL,
    -- The last event that changed it; equal to `seq` until then.
    changed_seq   bigint NOT NULL,
    created_at    bigint NOT NULL,
    edited_at     bigint,
    deleted_at    bigint,
    reply_to_seq  bigint,
    -- NULL for system messages.
    client_msg_id uuid,
    revision      integer NOT NULL,
    kind          text NOT NULL,
    -- Keyed hash of the original body; alone decides whether a retry is the same message.
    body_hash     bytea,
    -- For system messages: the type and data of the event.
    event         jsonb,
    text          text,
    -- Who is named in it: an array of ids and "all"; NULL: nobody.
    mentions      jsonb,
    -- How often each emoji was put: an object of counts; NULL: none.
    reactions     jsonb,
    PRIMARY KEY (room_id, seq)
) PARTITION BY HASH (room_id);

-- One message per (room, sender, client_msg_id), for good. The id comes first because clients make
-- UUIDv7, which grow with time: inserts then meet on the index's last pages.
-- System messages have none and never meet; a condition that leaves them out would be parsed anew for
-- every partition that a batch touches.
CREATE UNIQUE INDEX messages_once ON messages (client_msg_id, sender_id, room_id);

-- Messages that changed since they were created. The others are found by the primary key, so a send
-- pays nothing for this index.
CREATE INDEX messages_changed ON messages (room_id, changed_seq) WHERE changed_seq <> seq;

CREATE TABLE messages_p00 PARTITION OF messages FOR VALUES WITH (MODULUS 16, REMAINDER 0);
CREATE TABLE messages_p01 PARTITION OF messages FOR VALUES WITH (MODULUS 16, REMAINDER 1);
CREATE TABLE messages_p02 PARTITION OF messages FOR VALUES WITH (MODULUS 16, REMAINDER 2);
CREATE TABLE messages_p03 PARTITION OF messages FOR VALUES WITH (MODULUS 16, REMAINDER 3);
CREATE TABLE messages_p04 PARTITION OF messages FOR VALUES WITH (MODULUS 16, REMAINDER 4);
CREATE TABLE messages_p05 PARTITION OF messages FOR VALUES WITH (MODULUS 16, REMAINDER 5);
CREATE TABLE messages_p06 PARTITION OF messages FOR VALUES WITH (MODULUS 16, REMAINDER 6);
CREATE TABLE messages_p07 PARTITION OF messages FOR VALUES WITH (MODULUS 16, REMAINDER 7);
CREATE TABLE messages_p08 PARTITION OF messages FOR VALUES WITH (MODULUS 16, REMAINDER 8);
CREATE TABLE messages_p09 PARTITION OF messages FOR VALUES WITH (MODULUS 16, REMAINDER 9);
CREATE TABLE messages_p10 PARTITION OF messages FOR VALUES WITH (MODULUS 16, REMAINDER 10);
CREATE TABLE messages_p11 PARTITION OF messages FOR VALUES WITH (MODULUS 16, REMAINDER 11);
CREATE TABLE messages_p12 PARTITION OF messages FOR VALUES WITH (MODULUS 16, REMAINDER 12);
CREATE TABLE messages_p13 PARTITION OF messages FOR VALUES WITH (MODULUS 16, REMAINDER 13);
CREATE TABLE messages_p14 PARTITION OF messages FOR VALUES WITH (MODULUS 16, REMAINDER 14);
CREATE TABLE messages_p15 PARTITION OF messages FOR VALUES WITH (MODULUS 16, REMAINDER 15);

-- Members, and who once was one (`left_seq` is not null).
CREATE TABLE room_participants (
    room_id    uuid NOT NULL,
    user_id    uuid NOT NULL,
    role       text NOT NULL CHECK (role IN ('member', 'admin', 'owner')),
    -- Of the latest stay.
    joined_seq bigint NOT NULL,
    joined_at  bigint NOT NULL,
    left_seq   bigint,
    left_at    bigint,
    PRIMARY KEY (room_id, user_id)
);

-- The rooms of a user.
CREATE INDEX room_participants_of_user ON room_participants (user_id, room_id)
    WHERE left_seq IS NULL;

-- The members of a room, longest-serving first.
CREATE INDEX room_participants_by_service ON room_participants (room_id, joined_seq, user_id)
    WHERE left_seq IS NULL;

-- Watermarks per room and user, made when a user joins; `delivered_seq` is never below `read_seq`.
-- Neither ever decreases. A send advances its author's, so pages are left half free.
CREATE TABLE message_read_status (
    room_id       uuid NOT NULL,
    user_id       uuid NOT NULL,
    read_seq      bigint NOT NULL,
    delivered_seq bigint NOT NULL,
    PRIMARY KEY (room_id, user_id)
) WITH (fillfactor = 50);

-- Events that are no message of their own: changes of messages. One small row each, without text, so
-- that no `seq` is missing when events are told again.
CREATE TABLE room_events (
    room_id     uuid NOT NULL,
    seq         bigint NOT NULL,
    ts          bigint NOT NULL,
    message_seq bigint NOT NULL,
    actor_id    uuid NOT NULL,
    type        text NOT NULL,
    -- What the columns do not say.
    data        jsonb,
    PRIMARY KEY (room_id, seq)
) PARTITION BY HASH (room_id);

CREATE TABLE room_events_p00 PARTITION OF room_events FOR VALUES WITH (MODULUS 16, REMAINDER 0);
CREATE TABLE room_events_p01 PARTITION OF room_events FOR VALUES WITH (MODULUS 16, REMAINDER 1);
CREATE TABLE room_events_p02 PARTITION OF room_events FOR VALUES WITH (MODULUS 16, REMAINDER 2);
CREATE TABLE room_events_p03 PARTITION OF room_events FOR VALUES WITH (MODULUS 16, REMAINDER 3);
CREATE TABLE room_events_p04 PARTITION OF room_events FOR VALUES WITH (MODULUS 16, REMAINDER 4);
CREATE TABLE room_events_p05 PARTITION OF room_events FOR VALUES WITH (MODULUS 16, REMAINDER 5);
CREATE TABLE room_events_p06 PARTITION OF room_events FOR VALUES WITH (MODULUS 16, REMAINDER 6);
CREATE TABLE room_events_p07 PARTITION OF room_events FOR VALUES WITH (MODULUS 16, REMAINDER 7);
CREATE TABLE room_events_p08 PARTITION OF room_events FOR VALUES WITH (MODULUS 16, REMAINDER 8);
CREATE TABLE room_events_p09 PARTITION OF room_events FOR VALUES WITH (MODULUS 16, REMAINDER 9);
CREATE TABLE room_events_p10 PARTITION OF room_events FOR VALUES WITH (MODULUS 16, REMAINDER 10);
CREATE TABLE room_events_p11 PARTITION OF room_events FOR VALUES WITH (MODULUS 16, REMAINDER 11);
CREATE TABLE room_events_p12 PARTITION OF room_events FOR VALUES WITH (MODULUS 16, REMAINDER 12);
CREATE TABLE room_events_p13 PARTITION OF room_events FOR VALUES WITH (MODULUS 16, REMAINDER 13);
CREATE TABLE room_events_p14 PARTITION OF room_events FOR VALUES WITH (MODULUS 16, REMAINDER 14);
CREATE TABLE room_events_p15 PARTITION OF room_events FOR VALUES WITH (MODULUS 16, REMAINDER 15);

-- Who put which emoji on what; counted in `messages.reactions`.
CREATE TABLE message_reactions (
    room_id     uuid NOT NULL,
    message_seq bigint NOT NULL,
    user_id     uuid NOT NULL,
    emoji       text COLLATE "C" NOT NULL,
    PRIMARY KEY (room_id, message_seq, user_id, emoji)
) PARTITION BY HASH (room_id);

CREATE TABLE message_reactions_p00 PARTITION OF message_reactions FOR VALUES WITH (MODULUS 16, REMAINDER 0);
CREATE TABLE message_reactions_p01 PARTITION OF message_reactions FOR VALUES WITH (MODULUS 16, REMAINDER 1);
CREATE TABLE message_reactions_p02 PARTITION OF message_reactions FOR VALUES WITH (MODULUS 16, REMAINDER 2);
CREATE TABLE message_reactions_p03 PARTITION OF message_reactions FOR VALUES WITH (MODULUS 16, REMAINDER 3);
CREATE TABLE message_reactions_p04 PARTITION OF message_reactions FOR VALUES WITH (MODULUS 16, REMAINDER 4);
CREATE TABLE message_reactions_p05 PARTITION OF message_reactions FOR VALUES WITH (MODULUS 16, REMAINDER 5);
CREATE TABLE message_reactions_p06 PARTITION OF message_reactions FOR VALUES WITH (MODULUS 16, REMAINDER 6);
CREATE TABLE message_reactions_p07 PARTITION OF message_reactions FOR VALUES WITH (MODULUS 16, REMAINDER 7);
CREATE TABLE message_reactions_p08 PARTITION OF message_reactions FOR VALUES WITH (MODULUS 16, REMAINDER 8);
CREATE TABLE message_reactions_p09 PARTITION OF message_reactions FOR VALUES WITH (MODULUS 16, REMAINDER 9);
CREATE TABLE message_reactions_p10 PARTITION OF message_reactions FOR VALUES WITH (MODULUS 16, REMAINDER 10);
CREATE TABLE message_reactions_p11 PARTITION OF message_reactions FOR VALUES WITH (MODULUS 16, REMAINDER 11);
CREATE TABLE message_reactions_p12 PARTITION OF message_reactions FOR VALUES WITH (MODULUS 16, REMAINDER 12);
CREATE TABLE message_reactions_p13 PARTITION OF message_reactions FOR VALUES WITH (MODULUS 16, REMAINDER 13);
CREATE TABLE message_reactions_p14 PARTITION OF message_reactions FOR VALUES WITH (MODULUS 16, REMAINDER 14);
CREATE TABLE message_reactions_p15 PARTITION OF message_reactions FOR VALUES WITH (MODULUS 16, REMAINDER 15);

-- Pinned messages.
CREATE TABLE room_pins (
    room_id     uuid NOT NULL,
    message_seq bigint NOT NULL,
    -- The event that pinned it.
    pinned_seq  bigint NOT NULL,
    pinned_by   uuid NOT NULL,
    pinned_at   bigint NOT NULL,
    PRIMARY KEY (room_id, message_seq)
);

-- Messages that users reported, for those who run the service.
CREATE TABLE message_reports (
    room_id     uuid NOT NULL,
    message_seq bigint NOT NULL,
    reporter_id uuid NOT NULL,
    -- What the reporter saw.
    revision    integer NOT NULL,
    created_at  bigint NOT NULL,
    PRIMARY KEY (room_id, message_seq, reporter_id)
);

-- Who wants to hear nothing of whom.
CREATE TABLE user_relationships (
    user_id    uuid NOT NULL,
    other_id   uuid NOT NULL,
    kind       text NOT NULL CHECK (kind IN ('block')),
    created_at bigint NOT NULL,
    PRIMARY KEY (user_id, other_id, kind),
    CHECK (user_id <> other_id)
);

CREATE INDEX user_relationships_of_other ON user_relationships (other_id, user_id);

-- Who was typing, as a sample for operators: unlogged, empty after a crash, and never on the path of an
-- event. Typing itself goes from node to node and expires there.
CREATE UNLOGGED TABLE typing_indicators (
    room_id    uuid NOT NULL,
    user_id    uuid NOT NULL,
    expires_at bigint NOT NULL,
    PRIMARY KEY (room_id, user_id)
);
