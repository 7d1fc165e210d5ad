-- What a room is to one of its members alone, beside their watermarks: in the row that a sign-in and a list
-- of rooms read anyway. It stays when the member leaves.
--
-- Locks. Receipts and these columns are written without the room's lock. They hold rows of
-- `message_read_status` and wait for nothing while they do: a batch of receipts passes over rows that
-- somebody else has locked, and is given again what it passed over; a change of these columns locks one row.
-- So who has the room's lock, and rows of `message_read_status` in any order, may wait for them, but nobody
-- waits in a circle.

ALTER TABLE message_read_status
    -- Muted until then; NULL: not muted.
    ADD COLUMN muted_until bigint,
    -- The room's newest event when it was archived; NULL: not archived. A later message of a person brings
    -- the room back, unless it is muted.
    ADD COLUMN archived_seq bigint;

-- Whether a room is archived, by what its member's row says: 0 no, 1 yes, 2 as long as it is muted, because a
-- message of a person came since.
CREATE FUNCTION chat_archived(_room uuid, _archived_seq bigint) RETURNS integer
LANGUAGE plpgsql STABLE AS $$
BEGIN
    IF _archived_seq IS NULL THEN
        RETURN 0;
    END IF;
    IF EXISTS (SELECT FROM messages m
        WHERE m.room_id = _room AND m.seq > _archived_seq AND m.kind <> 'system')
    THEN
        RETURN 2;
    END IF;
    RETURN 1;
END $$;

-- Mutes (`_archive` is NULL), archives or brings back a room for one of its members. Outcomes: 0 nothing
-- changed, 1 changed, 15 no member.
CREATE FUNCTION chat_set_own(
    _now bigint, _room uuid, _user uuid, _archive boolean, _muted_until bigint
) RETURNS integer
LANGUAGE plpgsql VOLATILE AS $$
DECLARE
    _own message_read_status;
    _is_archived boolean;
BEGIN
    SELECT s.* INTO _own FROM message_read_status s
    JOIN room_participants p ON p.room_id = s.room_id AND p.user_id = s.user_id
    WHERE s.room_id = _room AND s.user_id = _user AND p.left_seq IS NULL
    FOR NO KEY UPDATE OF s;
    IF NOT FOUND THEN
        RETURN 15;
    END IF;
    _is_archived := CASE chat_archived(_room, _own.archived_seq)
        WHEN 0 THEN false WHEN 1 THEN true ELSE coalesce(_own.muted_until > _now, false) END;
    IF _archive IS NULL AND _own.muted_until IS NOT DISTINCT FROM _muted_until
        OR _archive = _is_archived
    THEN
        RETURN 0;
    END IF;
    UPDATE message_read_status s SET
        muted_until = CASE WHEN _archive IS NULL THEN _muted_until ELSE s.muted_until END,
        archived_seq = CASE
            WHEN _archive THEN (SELECT r.last_seq FROM chat_rooms r WHERE r.room_id = _room)
            WHEN _archive IS NULL AND _is_archived THEN s.archived_seq END
    WHERE s.room_id = _room AND s.user_id = _user;
    RETURN 1;
END $$;
