//! What there is of a user, page by page.

use super::marks::Marks;
use super::read::newest;
use super::retain::floor;
use super::row::{Failure, int, message, message_columns, role, room_id, room_kind, uint, user_id};
use super::uploads::{upload, upload_columns};
use crate::chat::port::export::{
    EXPORT_PAGE, EXPORT_STRETCH, ExportFound, ExportKind, ExportPage, ExportPart, ExportRead,
    ExportUpload,
};
use crate::protocol::export::{
    ExportBlock, ExportMention, ExportReaction, ExportReport, ExportRoom,
};
use crate::protocol::{RoomId, Seq, UnixMs, UploadId, UserId};
use crate::store::export::of_message;
use rusqlite::{Connection, Row, ToSql, params};
use uuid::Uuid;

/// Reads a page.
pub(super) fn read(
    connection: &Connection,
    marks: &Marks,
    read: &ExportRead,
) -> Result<ExportPage, Failure> {
    let found = match read.part {
        ExportPart::Rooms(after) => ExportFound::Rooms(rooms(connection, marks, read.user, after)?),
        ExportPart::Blocks(after) => {
            let after = after.map_or(Uuid::nil(), |user| user.0);
            let sql = "SELECT other_id, created_at FROM user_relationships
                 WHERE user_id = ?1 AND kind = 'block' AND other_id > ?2 ORDER BY other_id LIMIT ?3";
            let params = params![
                read.user.0.as_bytes(),
                after.as_bytes(),
                int(EXPORT_PAGE as u64)
            ];
            ExportFound::Blocks(all(connection, sql, params, |row| {
                Ok(ExportBlock {
                    user_id: user_id(row, 0)?,
                    created_at: UnixMs(uint(row, 1)?),
                })
            })?)
        }
        ExportPart::Uploads(after) => ExportFound::Uploads(uploads(connection, read.user, after)?),
        ExportPart::InRoom(kind, room, after) => {
            return in_room(connection, read.user, kind, room, after);
        }
    };
    Ok(ExportPage { found, next: None })
}

/// All rows of a statement as values.
fn all<T>(
    connection: &Connection,
    sql: &str,
    params: &[&dyn ToSql],
    value: impl Fn(&Row<'_>) -> Result<T, Failure>,
) -> Result<Vec<T>, Failure> {
    let mut statement = connection.prepare_cached(sql)?;
    let mut rows = statement.query(params)?;
    let mut found = Vec::new();
    while let Some(row) = rows.next()? {
        found.push(value(row)?);
    }
    Ok(found)
}

fn rooms(
    connection: &Connection,
    marks: &Marks,
    user: UserId,
    after: Option<RoomId>,
) -> Result<Vec<ExportRoom>, Failure> {
    let after = after.map_or(Uuid::nil(), |room| room.0);
    let number = |row: &Row<'_>, column| {
        let number: Option<i64> = row.get(column)?;
        Ok::<_, Failure>(number.map(i64::unsigned_abs))
    };
    let sql = "SELECT p.room_id, r.kind, iif(p.left_seq IS NULL, r.title, NULL),
             iif(r.kind = 'direct', (SELECT o.user_id FROM room_participants o
                 WHERE o.room_id = p.room_id AND o.user_id <> p.user_id LIMIT 1), NULL),
             p.role, p.joined_at, iif(p.left_seq IS NULL, NULL, p.left_at),
             coalesce(s.read_seq, 0), coalesce(s.delivered_seq, 0), s.muted_until, s.archived_seq
         FROM (
             SELECT * FROM (SELECT * FROM room_participants
                 WHERE user_id = ?1 AND room_id > ?2 AND left_seq IS NULL ORDER BY room_id LIMIT ?3)
             UNION ALL
             SELECT * FROM (SELECT * FROM room_participants
                 WHERE user_id = ?1 AND room_id > ?2 AND left_seq IS NOT NULL ORDER BY room_id LIMIT ?3)
         ) p
         CROSS JOIN chat_rooms r ON r.room_id = p.room_id
         LEFT JOIN message_read_status s ON s.room_id = p.room_id AND s.user_id = p.user_id
         ORDER BY p.room_id LIMIT ?3";
    let params = params![user.0.as_bytes(), after.as_bytes(), int(EXPORT_PAGE as u64)];
    all(connection, sql, params, |row| {
        let room = room_id(row, 0)?;
        let with: Option<[u8; 16]> = row.get(3)?;
        Ok(ExportRoom {
            room_id: room,
            kind: room_kind(row, 1)?,
            title: row.get(2)?,
            with: with.map(|id| UserId(Uuid::from_bytes(id))),
            role: role(row, 4)?,
            joined_at: UnixMs(uint(row, 5)?),
            left_at: number(row, 6)?.map(UnixMs),
            read_seq: marks.mark(room, user, uint(row, 7)?),
            delivered_seq: marks.mark(room, user, uint(row, 8)?),
            muted_until: number(row, 9)?.map(UnixMs),
            archived_seq: number(row, 10)?,
        })
    })
}

fn uploads(
    connection: &Connection,
    user: UserId,
    after: Option<(UnixMs, UploadId)>,
) -> Result<Vec<ExportUpload>, Failure> {
    let (at, id) = after.map_or((-1, Uuid::nil()), |(at, id)| (int(at.0), id.0));
    let sql = concat!(
        "SELECT ",
        upload_columns!(),
        ", room_id, created_at FROM uploads
         WHERE owner_id = ?1 AND created_at >= ?2 AND (created_at, upload_id) > (?2, ?3) AND state <> 'removed'
         ORDER BY created_at, upload_id LIMIT ?4"
    );
    let limit = int(EXPORT_PAGE as u64);
    let params = params![user.0.as_bytes(), at, id.as_bytes(), limit];
    all(connection, sql, params, |row| {
        Ok(ExportUpload {
            upload: upload(row)?,
            room: room_id(row, 11)?,
            created_at: UnixMs(uint(row, 12)?),
        })
    })
}

fn in_room(
    connection: &Connection,
    user: UserId,
    kind: ExportKind,
    room: RoomId,
    after: Seq,
) -> Result<ExportPage, Failure> {
    let to = after.saturating_add(EXPORT_STRETCH);
    let (last_seq, _) = newest(connection, room)?;
    let from = match kind {
        ExportKind::Messages | ExportKind::Mentions => after.max(floor(connection, room)?),
        ExportKind::Reactions | ExportKind::Reports => after,
    };
    let (user_id, id) = (user.0.as_bytes(), user.to_string());
    let (room_id, from, until) = (room.0.as_bytes(), int(from), int(to));
    let found = match kind {
        ExportKind::Messages => {
            let sql = concat!(
                "SELECT ",
                message_columns!(),
                " FROM messages WHERE room_id = ?2 AND seq > ?3 AND seq <= ?4 AND sender_id = ?1
                     AND kind <> 'system' ORDER BY seq"
            );
            let params = params![user_id, room_id, from, until];
            let value = |row: &Row<'_>| Ok(of_message(room, message(row)?));
            ExportFound::Messages(all(connection, sql, params, value)?)
        }
        ExportKind::Mentions => {
            let sql = "SELECT seq, created_at FROM messages
                 WHERE room_id = ?2 AND seq > ?3 AND seq <= ?4 AND sender_id <> ?1
                     AND instr(mentions, ?5) > 0 ORDER BY seq";
            let params = params![user_id, room_id, from, until, id];
            ExportFound::Mentions(all(connection, sql, params, |row| {
                Ok(ExportMention {
                    room_id: room,
                    message_seq: uint(row, 0)?,
                    created_at: UnixMs(uint(row, 1)?),
                })
            })?)
        }
        ExportKind::Reactions => {
            let sql = "SELECT message_seq, emoji FROM message_reactions
                 WHERE room_id = ?2 AND message_seq > ?3 AND message_seq <= ?4 AND user_id = ?1
                 ORDER BY message_seq, emoji";
            let params = params![user_id, room_id, from, until];
            ExportFound::Reactions(all(connection, sql, params, |row| {
                Ok(ExportReaction {
                    room_id: room,
                    message_seq: uint(row, 0)?,
                    emoji: row.get(1)?,
                })
            })?)
        }
        ExportKind::Reports => {
            let sql = "SELECT message_seq, revision, created_at FROM message_reports
                 WHERE room_id = ?2 AND message_seq > ?3 AND message_seq <= ?4 AND reporter_id = ?1
                 ORDER BY message_seq";
            let params = params![user_id, room_id, from, until];
            ExportFound::Reports(all(connection, sql, params, |row| {
                Ok(ExportReport {
                    room_id: room,
                    message_seq: uint(row, 0)?,
                    revision: row.get(1)?,
                    created_at: UnixMs(uint(row, 2)?),
                })
            })?)
        }
    };
    Ok(ExportPage {
        found,
        next: (to < last_seq).then_some(to),
    })
}
