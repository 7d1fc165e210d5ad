-- Erased users.

-- Whom nobody is again: a keyed hash of the user's id, which tells nothing without the key of `meta`.
CREATE TABLE erased_users (
    mark      BLOB NOT NULL PRIMARY KEY CHECK (length(mark) = 16),
    erased_at INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

-- Erasures that are not done. The rooms left are those with a row of the user in `room_participants`.
CREATE TABLE erasures (
    user_id      BLOB NOT NULL PRIMARY KEY CHECK (length(user_id) = 16),
    requested_at INTEGER NOT NULL,
    -- Until then somebody works on it.
    lease_until  INTEGER NOT NULL DEFAULT 0
) STRICT, WITHOUT ROWID;

-- While its user is erased: the room's events up to this one are looked through.
ALTER TABLE room_participants ADD COLUMN erased_seq INTEGER;

-- The rooms that a user was in.
CREATE INDEX room_participants_of_former ON room_participants (user_id, room_id)
    WHERE left_seq IS NOT NULL;
