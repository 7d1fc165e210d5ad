-- Rooms of the chat, as it told of them when they were opened: who was there then.
CREATE TABLE rooms (
    id       TEXT PRIMARY KEY,
    kind     TEXT NOT NULL
);

CREATE TABLE room_members (
    user_id  TEXT NOT NULL,
    room_id  TEXT NOT NULL REFERENCES rooms (id),
    PRIMARY KEY (user_id, room_id)
);
