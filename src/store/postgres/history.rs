//! Pages of a room's history for its members: messages in their current state, with the right to see
//! them and the room's newest event in the same statement.

use super::row::{Failure, get, message_columns, message_for_user, own_reactions, uint};
use super::session::Session;
use crate::chat::port::{HistoryPage, HistoryRead, Refusal};
use crate::protocol::reply::History;
use crate::protocol::view::Message;
use crate::protocol::{ErrorCode, Seq};
use crate::store::common::{Taken, int, middle_out, refuse};
use tokio_postgres::Row;

/// What stands before the messages: whether there is anything to see. Without messages, one row.
macro_rules! page_of {
    ($messages:expr) => {
        page_of!(
            "EXISTS (SELECT FROM room_participants
                 WHERE room_id = $1 AND user_id = $2 AND left_seq IS NULL)",
            $messages
        )
    };
    ($may:expr, $messages:expr) => {
        concat!(
            "SELECT h.is_member, h.last_seq, h.floor_seq, m.side, ",
            own_reactions!("$2"),
            ", ",
            message_columns!(),
            " FROM (SELECT ",
            $may,
            " AS is_member,
                     coalesce(max(r.last_seq), 0) AS last_seq, coalesce(max(r.floor_seq), 0) AS floor_seq
                 FROM chat_rooms r WHERE r.room_id = $1) h
             LEFT JOIN LATERAL (",
            $messages,
            ") m ON h.is_member ORDER BY m.side, m.place"
        )
    };
}

/// The first messages of one side, by `$4` and `$5`: one more than are wanted, so that it is known
/// whether there are more, and of the bytes one message more than fit.
macro_rules! cut {
    ($side:literal, $order:literal, $from:expr) => {
        concat!(
            "SELECT ",
            $side,
            " AS side, w.* FROM (
                 SELECT t.*, row_number() OVER (ORDER BY ",
            $order,
            ") AS place, sum(coalesce(octet_length(t.text), 0)) OVER (ORDER BY ",
            $order,
            ") - coalesce(octet_length(t.text), 0) AS bytes_before
                 FROM (",
            $from,
            ") t) w WHERE w.bytes_before <= $5 OR w.place <= 2"
        )
    };
}

macro_rules! older {
    ($bound:literal) => {
        cut!(
            "0",
            "t.seq DESC",
            concat!(
                "SELECT * FROM messages WHERE room_id = $1 AND seq ",
                $bound,
                " $3 AND seq > h.floor_seq ORDER BY seq DESC LIMIT $4"
            )
        )
    };
}

/// Messages below a `seq`, newest first.
pub(super) const OLDER: &str = page_of!(older!("<"));

/// Whether there is such a room: all that is asked of the service.
macro_rules! is_there {
    () => {
        "EXISTS (SELECT FROM chat_rooms WHERE room_id = $1 AND last_seq > 0)"
    };
}
const SERVICE_OLDER: &str = page_of!(is_there!(), older!("<"));

macro_rules! around {
    () => {
        concat!(
            older!("<="),
            " UNION ALL ",
            cut!(
                "1",
                "t.seq",
                "SELECT * FROM messages WHERE room_id = $1 AND seq > greatest($3, h.floor_seq)
                 ORDER BY seq LIMIT $4"
            )
        )
    };
}

/// Messages up to a `seq`, newest first, and above it, oldest first.
pub(super) const AROUND: &str = page_of!(around!());
const SERVICE_AROUND: &str = page_of!(is_there!(), around!());

macro_rules! changed {
    () => {
        cut!(
            "0",
            "t.changed_seq",
            "SELECT * FROM (
                 (SELECT * FROM messages WHERE room_id = $1 AND seq > greatest($3, h.floor_seq)
                      AND changed_seq = seq
                  ORDER BY seq LIMIT $4)
                 UNION ALL
                 (SELECT * FROM messages WHERE room_id = $1 AND changed_seq > $3
                      AND changed_seq <> seq AND seq > h.floor_seq
                  ORDER BY changed_seq LIMIT $4)) b ORDER BY changed_seq LIMIT $4"
        )
    };
}

/// Messages created or changed after a `seq`, by their last change: two stretches, each in order by an
/// index of its own, merged.
pub(super) const CHANGED: &str = page_of!(changed!());
const SERVICE_CHANGED: &str = page_of!(is_there!(), changed!());

/// A page, or `forbidden`, also where there is no such room.
pub(super) async fn history(
    session: &Session,
    read: &HistoryRead,
) -> Result<Result<History, Refusal>, Failure> {
    page_by(session, read, [OLDER, CHANGED, AROUND]).await
}

/// A page for the service, or `forbidden` where there is no such room.
pub(super) async fn history_for_service(
    session: &Session,
    read: &HistoryRead,
) -> Result<Result<History, Refusal>, Failure> {
    let statements = [SERVICE_OLDER, SERVICE_CHANGED, SERVICE_AROUND];
    page_by(session, read, statements).await
}

async fn page_by(
    session: &Session,
    read: &HistoryRead,
    [older, changed, around]: [&'static str; 3],
) -> Result<Result<History, Refusal>, Failure> {
    let (sql, seq) = match read.page {
        HistoryPage::Newest => (older, Seq::MAX),
        HistoryPage::Before(seq) => (older, seq),
        HistoryPage::After(seq) => (changed, seq),
        HistoryPage::Around(seq) => (around, seq),
    };
    let limit = int((read.limit as u64).saturating_add(1));
    let bytes_max = int(read.bytes_max as u64);
    let rows = session
        .query(
            sql,
            &[&read.room.0, &read.user.0, &int(seq), &limit, &bytes_max],
        )
        .await?;
    let Some(first) = rows.first() else {
        return Err(Failure::Data("a page without a head".to_owned()));
    };
    if !get::<bool>(first, 0)? {
        return Ok(refuse(ErrorCode::Forbidden, "not a member of this room"));
    }
    let (last_seq, floor) = (uint(first, 1)?, uint(first, 2)?);
    let (messages, has_more, next_after_seq) = match read.page {
        HistoryPage::Newest | HistoryPage::Before(_) => {
            let (mut messages, has_more) = page(&rows, 0, read)?;
            messages.reverse();
            (messages, has_more, None)
        }
        HistoryPage::After(_) => {
            let (messages, has_more) = page(&rows, 0, read)?;
            // What has a `changed_seq` up to that of the last message here was told; on the last
            // page, everything in this snapshot was.
            let next_after_seq = match messages.last() {
                Some(message) if has_more => message.changed_seq,
                _ => last_seq,
            };
            (messages, has_more, Some(next_after_seq))
        }
        HistoryPage::Around(_) => {
            let (older, newer) = (page(&rows, 0, read)?, page(&rows, 1, read)?);
            let (messages, has_more) = middle_out(read, older, newer);
            (messages, has_more, None)
        }
    };
    Ok(Ok(History {
        messages,
        has_more,
        last_seq,
        next_after_seq,
        floor_seq: (floor > 0).then_some(floor),
    }))
}

/// The first messages of one side that fit into the page, and whether there are more.
fn page(rows: &[Row], side: i32, read: &HistoryRead) -> Result<(Vec<Message>, bool), Failure> {
    let mut taken = Taken::none();
    let mut messages = Vec::new();
    for row in rows {
        if get::<Option<i32>>(row, 3)? != Some(side) {
            continue;
        }
        let message = message_for_user(row, 4)?;
        if !taken.takes(&message, read) {
            return Ok((messages, true));
        }
        messages.push(message);
    }
    Ok((messages, false))
}
