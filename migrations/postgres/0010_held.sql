-- A batch that does not wait for rooms that others hold, so that a room in which several nodes write, or
-- which somebody holds for long, never holds up the others of its batch.
--
-- Further outcome:
--   29 another transaction holds the room: nothing was done, the write is to be given to chat_commit

-- As `chat_commit`, of writes that lock rooms and no users. If another transaction holds one of the rooms, the writes
-- to such rooms are named, and nothing is done: the others are to be given again without them.
--
-- The second lock, in `chat_commit`, is of rows that this transaction holds.
CREATE FUNCTION chat_try_commit(
    _careful boolean, _clock bigint, _kinds integer[], _run_ends integer[], _rooms uuid[],
    _actors uuid[], _ids uuid[], _hashes bytea[], _replies bigint[], _texts text[],
    _user_ends integer[], _users uuid[], _locked_users uuid[], _members_max integer,
    _rooms_max integer, _shown_max integer
) RETURNS TABLE (ix integer, outcome integer, seq bigint, ts bigint, event text)
LANGUAGE plpgsql VOLATILE AS $$
#variable_conflict use_column
DECLARE
    _free uuid[];
BEGIN
    -- Nobody is waited for, so the order does not matter.
    SELECT array_agg(l.room_id) INTO _free FROM (
        SELECT r.room_id FROM chat_rooms r WHERE r.room_id = ANY (_rooms)
        FOR NO KEY UPDATE SKIP LOCKED
    ) l;
    -- A room that was not locked is held by others, or there is none: that is told by `chat_commit`.
    RETURN QUERY
    SELECT a.n::integer, 29, NULL::bigint, NULL::bigint, NULL::text
    FROM unnest(_rooms) WITH ORDINALITY AS a (room_id, n)
    WHERE a.room_id <> ALL (coalesce(_free, '{}'))
        AND EXISTS (SELECT FROM chat_rooms r WHERE r.room_id = a.room_id);
    IF NOT FOUND THEN
        RETURN QUERY SELECT * FROM chat_commit(_careful, _clock, _kinds, _run_ends, _rooms, _actors,
            _ids, _hashes, _replies, _texts, _user_ends, _users, _locked_users, _members_max,
            _rooms_max, _shown_max);
    END IF;
END $$;
