-- Search: the words of messages. Written behind the sends, by statements of their own, from what `messages`
-- has and this has not yet. The words are made by the program; each entry has its room as a word beside
-- them.

CREATE TABLE message_search (
    room_id     uuid NOT NULL,
    seq         bigint NOT NULL,
    -- By time, and within a millisecond by chance.
    place       bigint NOT NULL,
    sender_id   uuid NOT NULL,
    -- The message as of this event; of two nodes that write an entry the newer one stands.
    changed_seq bigint NOT NULL,
    -- Without words: deleted, or none.
    document    tsvector NOT NULL,
    PRIMARY KEY (room_id, seq)
);

-- Nobody waits for what is written here, but somebody for what is read: no list of what is pending.
CREATE INDEX message_search_words ON message_search USING gin (document) WITH (fastupdate = off);

-- Up to which event of a room all that it says of messages is in `message_search`.
CREATE TABLE indexed_rooms (
    room_id     uuid PRIMARY KEY,
    indexed_seq bigint NOT NULL
) WITH (fillfactor = 70);

-- Writes entries, and how far rooms are indexed by that.
CREATE FUNCTION chat_index(
    _rooms uuid[], _seqs bigint[], _places bigint[], _senders uuid[], _changed bigint[],
    _documents text[], _done_rooms uuid[], _done_seqs bigint[]
) RETURNS void
LANGUAGE plpgsql VOLATILE AS $$
BEGIN
    INSERT INTO message_search AS s (room_id, seq, place, sender_id, changed_seq, document)
    SELECT a.room_id, a.seq, a.place, a.sender_id, a.changed_seq, a.document::tsvector
    FROM unnest(_rooms, _seqs, _places, _senders, _changed, _documents)
        AS a (room_id, seq, place, sender_id, changed_seq, document)
    ORDER BY a.room_id, a.seq
    ON CONFLICT (room_id, seq) DO UPDATE
    SET document = excluded.document, changed_seq = excluded.changed_seq
    WHERE s.changed_seq < excluded.changed_seq;
    INSERT INTO indexed_rooms AS i (room_id, indexed_seq)
    SELECT a.room_id, a.seq FROM unnest(_done_rooms, _done_seqs) AS a (room_id, seq)
    ORDER BY a.room_id
    ON CONFLICT (room_id) DO UPDATE
    SET indexed_seq = greatest(i.indexed_seq, excluded.indexed_seq);
END $$;
