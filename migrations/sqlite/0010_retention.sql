-- Retention: messages are dropped room by room when they are older than the room keeps them.

-- Events up to this one are dropped: of persons' messages tombstones are left, without which a send that is
-- retried would be a new one; of the rest nothing but the room's first event and its newest.
ALTER TABLE chat_rooms ADD COLUMN floor_seq INTEGER NOT NULL DEFAULT 0;

-- For how many days messages are kept; NULL: as the program is told for all rooms; 0: for ever.
ALTER TABLE chat_rooms ADD COLUMN retention_days INTEGER CHECK (retention_days >= 0);

-- No event above the floor is older than that; NULL: nothing was dropped yet, so none is older than the room.
ALTER TABLE chat_rooms ADD COLUMN oldest_at INTEGER;

-- The rooms that have something to drop, by what they have longest.
CREATE INDEX chat_rooms_by_age ON chat_rooms (coalesce(oldest_at, created_at))
    WHERE retention_days IS NULL;
CREATE INDEX chat_rooms_by_own_age
    ON chat_rooms (coalesce(oldest_at, created_at) + retention_days * 86400000)
    WHERE retention_days > 0;

-- Until then somebody drops.
CREATE TABLE retention_lease (
    one         INTEGER PRIMARY KEY CHECK (one = 1),
    lease_until INTEGER NOT NULL
) STRICT;
INSERT INTO retention_lease (one, lease_until) VALUES (1, 0);
