//! What there is of a user, page by page: each is one statement.

use super::row::{Failure, MESSAGE_COLUMNS, get, message, message_columns, role, room_kind, uint};
use super::row::{room_id, user_id};
use super::session::Session;
use super::uploads::{upload, upload_columns};
use crate::chat::port::export::{
    EXPORT_PAGE, EXPORT_STRETCH, ExportFound, ExportKind, ExportPage, ExportPart, ExportRead,
    ExportUpload,
};
use crate::protocol::export::{
    ExportBlock, ExportMention, ExportReaction, ExportReport, ExportRoom,
};
use crate::protocol::{RoomId, Seq, UnixMs, UserId};
use crate::store::common::int;
use crate::store::export::of_message;
use tokio_postgres::Row;
use tokio_postgres::types::ToSql;
use uuid::Uuid;

/// `$1`: user; `$2`: after this room; `$3`: at most.
const ROOMS: &str = "SELECT p.room_id, r.kind, CASE WHEN p.left_seq IS NULL THEN r.title END,
         CASE WHEN r.kind = 'direct' THEN (SELECT o.user_id FROM room_participants o
             WHERE o.room_id = p.room_id AND o.user_id <> p.user_id LIMIT 1) END,
         p.role, p.joined_at, CASE WHEN p.left_seq IS NOT NULL THEN p.left_at END,
         coalesce(s.read_seq, 0), coalesce(s.delivered_seq, 0), s.muted_until, s.archived_seq
     FROM (
         (SELECT * FROM room_participants WHERE user_id = $1 AND room_id > $2 AND left_seq IS NULL
          ORDER BY room_id LIMIT $3)
         UNION ALL
         (SELECT * FROM room_participants WHERE user_id = $1 AND room_id > $2 AND left_seq IS NOT NULL
          ORDER BY room_id LIMIT $3)
     ) p
     JOIN chat_rooms r ON r.room_id = p.room_id
     LEFT JOIN message_read_status s ON s.room_id = p.room_id AND s.user_id = p.user_id
     ORDER BY p.room_id LIMIT $3";

/// `$1`: user; `$2`: after this one; `$3`: at most.
const BLOCKS: &str = "SELECT other_id, created_at FROM user_relationships
     WHERE user_id = $1 AND kind = 'block' AND other_id > $2 ORDER BY other_id LIMIT $3";

/// `$1`: user; `$2` and `$3`: after this one; `$4`: at most.
const UPLOADS: &str = concat!(
    "SELECT ",
    upload_columns!(),
    ", u.room_id, u.created_at FROM uploads u
     WHERE u.owner_id = $1 AND u.created_at >= $2 AND (u.created_at, u.upload_id) > ($2, $3)
         AND u.state <> 'removed'
     ORDER BY u.created_at, u.upload_id LIMIT $4"
);

/// Where the room ends, beside what is found in a stretch. `$1`: user; `$2`: room; `$3` and `$4`: after this event,
/// up to this one.
macro_rules! in_room {
    ($columns:expr, $from:literal, $order:literal) => {
        concat!(
            "SELECT ",
            $columns,
            ", h.last_seq FROM (SELECT coalesce(max(last_seq), 0) AS last_seq,
                 coalesce(max(floor_seq), 0) AS floor_seq FROM chat_rooms WHERE room_id = $2) h
             LEFT JOIN LATERAL (",
            $from,
            ") m ON true ORDER BY ",
            $order
        )
    };
}

const MESSAGES: &str = in_room!(
    message_columns!(),
    "SELECT c.* FROM messages c WHERE c.room_id = $2 AND c.seq > greatest($3, h.floor_seq)
         AND c.seq <= $4 AND c.sender_id = $1 AND c.kind <> 'system'",
    "m.seq"
);
const MENTIONS: &str = in_room!(
    "m.seq, m.created_at",
    "SELECT c.* FROM messages c WHERE c.room_id = $2 AND c.seq > greatest($3, h.floor_seq)
         AND c.seq <= $4 AND c.sender_id <> $1 AND c.mentions ? $1::text",
    "m.seq"
);
const REACTIONS: &str = in_room!(
    "m.message_seq, m.emoji",
    "SELECT x.* FROM message_reactions x WHERE x.room_id = $2 AND x.message_seq > $3
         AND x.message_seq <= $4 AND x.user_id = $1",
    "m.message_seq, m.emoji"
);
const REPORTS: &str = in_room!(
    "m.message_seq, m.revision, m.created_at",
    "SELECT x.* FROM message_reports x WHERE x.room_id = $2 AND x.message_seq > $3
         AND x.message_seq <= $4 AND x.reporter_id = $1",
    "m.message_seq"
);

/// Reads a page.
pub(super) async fn read(session: &Session, read: &ExportRead) -> Result<ExportPage, Failure> {
    let user = read.user;
    let limit = EXPORT_PAGE as i64;
    let found = match read.part {
        ExportPart::Rooms(after) => {
            let after = after.map_or(Uuid::nil(), |room| room.0);
            let rows = session.query(ROOMS, &[&user.0, &after, &limit]).await?;
            ExportFound::Rooms(rows.iter().map(room_of).collect::<Result<_, _>>()?)
        }
        ExportPart::Blocks(after) => {
            let after = after.map_or(Uuid::nil(), |user| user.0);
            let rows = session.query(BLOCKS, &[&user.0, &after, &limit]).await?;
            let block = |row: &Row| {
                Ok::<_, Failure>(ExportBlock {
                    user_id: user_id(row, 0)?,
                    created_at: UnixMs(uint(row, 1)?),
                })
            };
            ExportFound::Blocks(rows.iter().map(block).collect::<Result<_, _>>()?)
        }
        ExportPart::Uploads(after) => {
            let (at, id) = after.map_or((-1, Uuid::nil()), |(at, id)| (int(at.0), id.0));
            let params: [&(dyn ToSql + Sync); 4] = [&user.0, &at, &id, &limit];
            let rows = session.query(UPLOADS, &params).await?;
            let value = |row: &Row| {
                Ok::<_, Failure>(ExportUpload {
                    upload: upload(row)?,
                    room: room_id(row, 9)?,
                    created_at: UnixMs(uint(row, 10)?),
                })
            };
            ExportFound::Uploads(rows.iter().map(value).collect::<Result<_, _>>()?)
        }
        ExportPart::InRoom(kind, room, after) => {
            return in_room(session, user, kind, room, after).await;
        }
    };
    Ok(ExportPage { found, next: None })
}

async fn in_room(
    session: &Session,
    user: UserId,
    kind: ExportKind,
    room: RoomId,
    after: Seq,
) -> Result<ExportPage, Failure> {
    let to = after.saturating_add(EXPORT_STRETCH);
    let (sql, last_column) = match kind {
        ExportKind::Messages => (MESSAGES, MESSAGE_COLUMNS),
        ExportKind::Mentions => (MENTIONS, 2),
        ExportKind::Reactions => (REACTIONS, 2),
        ExportKind::Reports => (REPORTS, 3),
    };
    let params: [&(dyn ToSql + Sync); 4] = [&user.0, &room.0, &int(after), &int(to)];
    let rows = session.query(sql, &params).await?;
    let Some(first) = rows.first() else {
        return Err(Failure::Data("a stretch without a head".to_owned()));
    };
    let last_seq = uint(first, last_column)?;
    let mut there = Vec::with_capacity(rows.len());
    for row in &rows {
        // Where nothing is found there is one row, of the head alone.
        if get::<Option<i64>>(row, 0)?.is_some() {
            there.push(row);
        }
    }
    let there = there.into_iter();
    let found = match kind {
        ExportKind::Messages => {
            let value = |row| Ok::<_, Failure>(of_message(room, message(row, 0)?));
            ExportFound::Messages(there.map(value).collect::<Result<_, _>>()?)
        }
        ExportKind::Mentions => {
            let value = |row| {
                Ok::<_, Failure>(ExportMention {
                    room_id: room,
                    message_seq: uint(row, 0)?,
                    created_at: UnixMs(uint(row, 1)?),
                })
            };
            ExportFound::Mentions(there.map(value).collect::<Result<_, _>>()?)
        }
        ExportKind::Reactions => {
            let value = |row| {
                Ok::<_, Failure>(ExportReaction {
                    room_id: room,
                    message_seq: uint(row, 0)?,
                    emoji: get(row, 1)?,
                })
            };
            ExportFound::Reactions(there.map(value).collect::<Result<_, _>>()?)
        }
        ExportKind::Reports => {
            let value = |row| {
                Ok::<_, Failure>(ExportReport {
                    room_id: room,
                    message_seq: uint(row, 0)?,
                    revision: get::<i32>(row, 1)?.unsigned_abs(),
                    created_at: UnixMs(uint(row, 2)?),
                })
            };
            ExportFound::Reports(there.map(value).collect::<Result<_, _>>()?)
        }
    };
    Ok(ExportPage {
        found,
        next: (to < last_seq).then_some(to),
    })
}

fn room_of(row: &Row) -> Result<ExportRoom, Failure> {
    let number = |column| Ok::<_, Failure>(get::<Option<i64>>(row, column)?.map(i64::unsigned_abs));
    Ok(ExportRoom {
        room_id: room_id(row, 0)?,
        kind: room_kind(row, 1)?,
        title: get(row, 2)?,
        with: get::<Option<Uuid>>(row, 3)?.map(UserId),
        role: role(row, 4)?,
        joined_at: UnixMs(uint(row, 5)?),
        left_at: number(6)?.map(UnixMs),
        read_seq: uint(row, 7)?,
        delivered_seq: uint(row, 8)?,
        muted_until: number(9)?.map(UnixMs),
        archived_seq: number(10)?,
    })
}
