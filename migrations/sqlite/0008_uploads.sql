-- Files: what users bring, and which messages have it. The bytes lie elsewhere.

CREATE TABLE uploads (
    upload_id    BLOB NOT NULL PRIMARY KEY CHECK (length(upload_id) = 16),
    owner_id     BLOB NOT NULL CHECK (length(owner_id) = 16),
    -- For messages of this room only.
    room_id      BLOB NOT NULL CHECK (length(room_id) = 16),
    kind         TEXT NOT NULL CHECK (kind IN ('image', 'file', 'voice')),
    -- Where its bytes are, in the bucket of its kind.
    object_key   TEXT NOT NULL,
    name         TEXT NOT NULL,
    size         INTEGER NOT NULL,
    content_type TEXT NOT NULL,
    -- The hash of its bytes, if it was told.
    sha256       BLOB CHECK (length(sha256) = 32),
    created_at   INTEGER NOT NULL,
    -- Until then it can be brought.
    expires_at   INTEGER NOT NULL,
    state        TEXT NOT NULL
        CHECK (state IN ('created', 'checked', 'too_large', 'wrong', 'used', 'removed')),
    -- The message that has it, or had.
    message_seq  INTEGER,
    -- From then on it is removed; NULL: a message has it.
    remove_at    INTEGER,
    -- Until then somebody removes it.
    lease_until  INTEGER NOT NULL DEFAULT 0
) STRICT, WITHOUT ROWID;

-- What a user brought lately.
CREATE INDEX uploads_of_owner ON uploads (owner_id, created_at);

CREATE INDEX uploads_to_remove ON uploads (remove_at) WHERE remove_at IS NOT NULL;

-- Of a message with files: its kind and what they are, as JSON. Then `kind` is `text` all the same, so that the version
-- before can read it. NULL: it has none.
ALTER TABLE messages ADD COLUMN attachments TEXT;
