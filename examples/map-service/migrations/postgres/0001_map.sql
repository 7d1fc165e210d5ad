-- Where people are and meet. Ids are UUIDs, times ms since 1970, coordinates degrees (WGS 84).

-- People as their tokens named them last: the Main App has the accounts.
CREATE TABLE people (
    user_id  TEXT PRIMARY KEY,
    name     TEXT NOT NULL
);

CREATE TABLE places (
    id    TEXT PRIMARY KEY,
    name  TEXT NOT NULL,
    lat   DOUBLE PRECISION NOT NULL,
    lon   DOUBLE PRECISION NOT NULL
);
-- A search is a box of degrees first; what remains is measured.
CREATE INDEX places_box ON places (lat, lon);

CREATE TABLE user_locations (
    user_id     TEXT PRIMARY KEY REFERENCES people (user_id),
    lat         DOUBLE PRECISION NOT NULL,
    lon         DOUBLE PRECISION NOT NULL,
    updated_at  BIGINT NOT NULL
);
CREATE INDEX user_locations_box ON user_locations (lat, lon);

CREATE TABLE favorite_places (
    user_id   TEXT NOT NULL REFERENCES people (user_id),
    place_id  TEXT NOT NULL REFERENCES places (id),
    PRIMARY KEY (user_id, place_id)
);

CREATE TABLE meetup_invites (
    id          TEXT PRIMARY KEY,
    inviter_id  TEXT NOT NULL REFERENCES people (user_id),
    invitee_id  TEXT NOT NULL,
    place_id    TEXT NOT NULL REFERENCES places (id),
    title       TEXT NOT NULL,
    status      TEXT NOT NULL CHECK (status IN ('pending', 'accepted', 'declined')),
    created_at  BIGINT NOT NULL,
    -- A pending invite is over from then on.
    expires_at  BIGINT NOT NULL,
    CHECK (inviter_id <> invitee_id)
);
CREATE INDEX meetup_invites_inviter ON meetup_invites (inviter_id, created_at);
CREATE INDEX meetup_invites_invitee ON meetup_invites (invitee_id, created_at);

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
CREATE INDEX webhook_outbox_subject ON webhook_outbox (subject);
