-- What a room is to one of its members alone, beside their watermarks: in the row that a sign-in and a list
-- of rooms read anyway. It stays when the member leaves.

-- Muted until then; NULL: not muted.
ALTER TABLE message_read_status ADD COLUMN muted_until INTEGER;

-- The room's newest event when it was archived; NULL: not archived. A later message of a person brings the
-- room back, unless it is muted.
ALTER TABLE message_read_status ADD COLUMN archived_seq INTEGER;
