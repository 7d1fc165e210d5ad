-- Watermarks of two of whom one blocks the other, as both are told in their direct room: those of when it was severed.
-- NULL: as they are. Otherwise the one would see that the other still reads.
ALTER TABLE message_read_status ADD COLUMN shown_read_seq INTEGER;
ALTER TABLE message_read_status ADD COLUMN shown_delivered_seq INTEGER;

-- Of rooms that were severed before: as of now, with the marks that sends advanced (see 0001).
UPDATE message_read_status SET
    shown_read_seq = max(read_seq, coalesce((SELECT max(m.seq) FROM messages m
        WHERE m.room_id = message_read_status.room_id AND m.sender_id = message_read_status.user_id), 0)),
    shown_delivered_seq = max(delivered_seq, coalesce((SELECT max(m.seq) FROM messages m
        WHERE m.room_id = message_read_status.room_id AND m.sender_id = message_read_status.user_id), 0))
    WHERE room_id IN (SELECT room_id FROM chat_rooms WHERE severed <> 0);
