-- Blocks: who wants to hear nothing of whom, and what that forbids between two.

CREATE TABLE user_relationships (
    user_id    BLOB NOT NULL CHECK (length(user_id) = 16),
    other_id   BLOB NOT NULL CHECK (length(other_id) = 16),
    kind       TEXT NOT NULL CHECK (kind IN ('block')),
    created_at INTEGER NOT NULL,
    PRIMARY KEY (user_id, other_id, kind),
    CHECK (user_id <> other_id)
) STRICT, WITHOUT ROWID;

-- Whether one of a direct room's two blocked the other, or both did: a send reads this row anyway.
ALTER TABLE chat_rooms ADD COLUMN severed INTEGER NOT NULL DEFAULT 0;

-- Rises with every change of the user's own blocks; `version` with those of others too.
ALTER TABLE chat_users ADD COLUMN block_version INTEGER NOT NULL DEFAULT 0;
