-- Search: the words of messages. Written behind the sends, by transactions of its own, from what
-- `messages` has and this has not yet; the words are made by the program, and parted by spaces.

-- Without the text itself, which is in `messages`. The room is a word beside them.
CREATE VIRTUAL TABLE message_words USING fts5(
    room, document, content = '', contentless_delete = 1, tokenize = 'ascii'
);

-- Which message an entry is of. Its place, the entry's rowid, is by time.
CREATE TABLE message_places (
    place   INTEGER PRIMARY KEY,
    room_id BLOB NOT NULL CHECK (length(room_id) = 16),
    seq     INTEGER NOT NULL
) STRICT;

CREATE UNIQUE INDEX message_places_of ON message_places (room_id, seq);

-- Up to which event of a room all that it says of messages is in the index.
CREATE TABLE indexed_rooms (
    room_id     BLOB NOT NULL PRIMARY KEY CHECK (length(room_id) = 16),
    indexed_seq INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
