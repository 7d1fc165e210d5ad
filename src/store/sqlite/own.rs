//! What rooms are to their members alone: receipts, muted, archived, unread. And who the members are, page by
//! page.
//!
//! Receipts are written to their rows at once, not to the list of [`super::marks`]: there are few of them,
//! each the newest of its member and room.

use super::marks::Marks;
use super::read::{each_member, is_member, newest};
use super::rooms::unread;
use super::row::{Failure, int, refuse, uint};
use crate::chat::port::{
    Archived, MembersPage, MembersRead, OwnChange, OwnState, Receipt, ReceiptOutcome, Refusal,
    SetOwn,
};
use crate::protocol::{ErrorCode, RoomId, Seq, UnixMs, UserId};
use crate::store::changes;
use crate::store::common::{member_cursor, parse_member_cursor};
use rusqlite::{Connection, params};

/// The row of a member, with what the list of marks adds.
pub(super) struct Row {
    pub read_seq: Seq,
    pub delivered_seq: Seq,
    muted_until: Option<UnixMs>,
    archived_seq: Option<Seq>,
}

/// The row of a member.
pub(super) fn row_of(
    connection: &Connection,
    marks: &Marks,
    room: RoomId,
    user: UserId,
) -> Result<Row, Failure> {
    let mut statement = connection.prepare_cached(
        "SELECT read_seq, delivered_seq, muted_until, archived_seq FROM message_read_status
         WHERE room_id = ?1 AND user_id = ?2",
    )?;
    let mut rows = statement.query([room.0.as_bytes(), user.0.as_bytes()])?;
    let number = |number: Option<i64>| number.map(i64::unsigned_abs);
    Ok(match rows.next()? {
        Some(row) => Row {
            read_seq: marks.mark(room, user, uint(row, 0)?),
            delivered_seq: marks.mark(room, user, uint(row, 1)?),
            muted_until: number(row.get(2)?).map(UnixMs),
            archived_seq: number(row.get(3)?),
        },
        None => Row {
            read_seq: marks.mark(room, user, 0),
            delivered_seq: marks.mark(room, user, 0),
            muted_until: None,
            archived_seq: None,
        },
    })
}

/// Writes a batch of receipts, inside a transaction, of which the marks are as of its beginning.
pub(super) fn write_receipts(
    connection: &Connection,
    marks: &Marks,
    receipts: &[Receipt],
) -> Result<Vec<ReceiptOutcome>, Failure> {
    let mut outcomes = Vec::with_capacity(receipts.len());
    for receipt in receipts {
        let Receipt { room, user, .. } = *receipt;
        if !is_member(connection, room, user)? {
            outcomes.push(ReceiptOutcome::NotAMember);
            continue;
        }
        let (last_seq, _) = newest(connection, room)?;
        let row = row_of(connection, marks, room, user)?;
        let read_seq = row.read_seq.max(receipt.read_seq.min(last_seq));
        let delivered_seq = receipt.delivered_seq.max(receipt.read_seq).min(last_seq);
        let delivered_seq = row.delivered_seq.max(delivered_seq);
        if (read_seq, delivered_seq) == (row.read_seq, row.delivered_seq) {
            outcomes.push(ReceiptOutcome::Known);
            continue;
        }
        connection
            .prepare_cached(
                "UPDATE message_read_status SET read_seq = ?3, delivered_seq = ?4
                 WHERE room_id = ?1 AND user_id = ?2",
            )?
            .execute(params![
                room.0.as_bytes(),
                user.0.as_bytes(),
                int(read_seq),
                int(delivered_seq)
            ])?;
        outcomes.push(ReceiptOutcome::Advanced {
            read_seq,
            delivered_seq,
            is_read: read_seq > row.read_seq,
        });
    }
    Ok(outcomes)
}

/// Changes what a room is to one of its members, inside a transaction.
pub(super) fn set_own(
    connection: &Connection,
    marks: &Marks,
    set: &SetOwn,
) -> Result<Result<bool, Refusal>, Failure> {
    let SetOwn {
        user,
        room,
        change,
        now,
    } = *set;
    if !is_member(connection, room, user)? {
        return Ok(Err(changes::not_a_member()));
    }
    let row = row_of(connection, marks, room, user)?;
    let is_archived = archived(connection, room, row.archived_seq)?.is_now(row.muted_until, now);
    let (muted_until, archived_seq) = match change {
        OwnChange::Mute(until) if until == row.muted_until => return Ok(Ok(false)),
        // What came back stays.
        OwnChange::Mute(until) => (until, row.archived_seq.filter(|_| is_archived)),
        OwnChange::Archive(archive) if archive == is_archived => return Ok(Ok(false)),
        OwnChange::Archive(true) => (row.muted_until, Some(newest(connection, room)?.0)),
        OwnChange::Archive(false) => (row.muted_until, None),
    };
    connection
        .prepare_cached(
            "UPDATE message_read_status SET muted_until = ?3, archived_seq = ?4
             WHERE room_id = ?1 AND user_id = ?2",
        )?
        .execute(params![
            room.0.as_bytes(),
            user.0.as_bytes(),
            muted_until.map(|until| int(until.0)),
            archived_seq.map(int)
        ])?;
    Ok(Ok(true))
}

/// Whether a room is archived, by what its member's row says.
pub(super) fn archived(
    connection: &Connection,
    room: RoomId,
    archived_seq: Option<Seq>,
) -> Result<Archived, Failure> {
    let Some(archived_seq) = archived_seq else {
        return Ok(Archived::No);
    };
    let came_back = connection
        .prepare_cached(
            "SELECT 1 FROM messages WHERE room_id = ?1 AND seq > ?2 AND kind <> 'system' LIMIT 1",
        )?
        .exists(params![room.0.as_bytes(), int(archived_seq)])?;
    Ok(match came_back {
        true => Archived::WhileMuted,
        false => Archived::Yes,
    })
}

/// What a room is to a member; `None`: who asks is none.
pub(super) fn own_state(
    connection: &Connection,
    marks: &Marks,
    room: RoomId,
    user: UserId,
) -> Result<Option<OwnState>, Failure> {
    if !is_member(connection, room, user)? {
        return Ok(None);
    }
    let row = row_of(connection, marks, room, user)?;
    let (last_seq, _) = newest(connection, room)?;
    let floor = super::retain::floor(connection, room)?;
    Ok(Some(OwnState {
        read_seq: row.read_seq,
        unread: unread(connection, user, room, row.read_seq.max(floor), last_seq)?,
        muted_until: row.muted_until,
        archived: archived(connection, room, row.archived_seq)?,
    }))
}

/// A page of a room's members.
pub(super) fn list_members(
    connection: &Connection,
    marks: &Marks,
    read: &MembersRead,
) -> Result<Result<MembersPage, Refusal>, Failure> {
    let after = match read.cursor.as_deref().map(parse_member_cursor) {
        None => None,
        Some(Some(place)) => Some(place),
        Some(None) => return Ok(refuse(ErrorCode::BadRequest, "no such cursor")),
    };
    if !is_member(connection, read.room, read.user)? {
        return Ok(Err(changes::not_a_member()));
    }
    let mut page = MembersPage {
        members: Vec::new(),
        next_cursor: None,
    };
    let limit = read.limit.saturating_add(1);
    let mut last = None;
    each_member(
        connection,
        marks,
        read.room,
        after,
        limit,
        |joined_seq, member| {
            if page.members.len() < read.limit {
                last = Some((joined_seq, member.user_id));
                page.members.push(member);
            } else {
                page.next_cursor = last.map(|(joined_seq, user)| member_cursor(joined_seq, user));
            }
        },
    )?;
    Ok(Ok(page))
}
