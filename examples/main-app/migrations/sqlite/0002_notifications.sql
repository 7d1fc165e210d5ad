-- What the chat asks to be pushed, as a phone would show it. Times are the chat's own, as it writes them.
CREATE TABLE notifications (
    user_id      TEXT NOT NULL REFERENCES users (id),
    room_id      TEXT NOT NULL,
    message_seq  BIGINT NOT NULL,
    title        TEXT NOT NULL,
    text         TEXT NOT NULL,
    sent_at      TEXT NOT NULL,
    PRIMARY KEY (user_id, room_id, message_seq)
);

-- What the app's icon shows.
CREATE TABLE badges (
    user_id  TEXT PRIMARY KEY REFERENCES users (id),
    badge    BIGINT NOT NULL
);

-- Webhooks of the chat that were taken, by `webhook-id`: what was done but not answered in time comes again.
CREATE TABLE received_webhooks (
    id           TEXT PRIMARY KEY,
    received_at  BIGINT NOT NULL
);
