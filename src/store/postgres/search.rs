//! Finds messages by their words.
//!
//! Invariant: a hit is a message of a room that the user is a member of, with the words that it has now.

use super::row::{Failure, message_columns, message_for_user, own_reactions, room_id, uint};
use super::session::Session;
use crate::chat::port::{Refusal, SearchRead};
use crate::protocol::search::{SearchHit, SearchHits};
use crate::protocol::{ErrorCode, RoomId};
use crate::search::{Before, Query, ROOMS_NAMED_MAX};
use crate::store::common::{int, refuse};

/// Rooms of a user, all or one. `$1`: user; `$2`: the room, or NULL; `$3`: at most.
const OWN_ROOMS: &str = "SELECT room_id FROM room_participants
     WHERE user_id = $1 AND left_seq IS NULL AND ($2::uuid IS NULL OR room_id = $2) LIMIT $3";

/// `$1`: user; `$2`: words; `$3` to `$5`: before this one; `$6`: only in this room, or NULL; `$7`: at most.
const SEARCH: &str = concat!(
    "SELECT d.place, d.room_id, d.seq, ",
    own_reactions!("$1"),
    ", ",
    message_columns!(),
    " FROM (
         SELECT s.place, s.room_id, s.seq FROM message_search s
         JOIN room_participants p
             ON p.room_id = s.room_id AND p.user_id = $1 AND p.left_seq IS NULL
         WHERE s.document @@ $2::text::tsquery AND (s.place, s.room_id, s.seq) < ($3, $4, $5)
             AND ($6::uuid IS NULL OR s.room_id = $6)
             AND NOT EXISTS (SELECT FROM user_relationships x WHERE x.user_id = $1
                 AND x.other_id = s.sender_id AND x.kind = 'block')
         ORDER BY s.place DESC, s.room_id DESC, s.seq DESC LIMIT $7
     ) d JOIN messages m ON m.room_id = d.room_id AND m.seq = d.seq
     ORDER BY d.place DESC, d.room_id DESC, d.seq DESC"
);

/// All statements of a search.
pub(super) const SEARCHES: &[&str] = &[OWN_ROOMS, SEARCH];

/// A page, or why there is none.
pub(super) async fn search(
    session: &Session,
    read: &SearchRead,
) -> Result<Result<SearchHits, Refusal>, Failure> {
    let (query, before) = match (
        Query::parse(&read.query),
        Before::parse(read.before.as_deref()),
    ) {
        (Ok(query), Ok(before)) => (query, before),
        (Err(refusal), _) | (_, Err(refusal)) => return Ok(Err(refusal)),
    };
    let room = read.room.map(|room| room.0);
    let rooms_max = int(ROOMS_NAMED_MAX as u64 + 1);
    let rows = session
        .query(OWN_ROOMS, &[&read.user.0, &room, &rooms_max])
        .await?;
    let rooms = rows.iter().map(|row| room_id(row, 0));
    let mut rooms = rooms.collect::<Result<Vec<RoomId>, Failure>>()?;
    if room.is_some() && rooms.is_empty() {
        return Ok(refuse(ErrorCode::Forbidden, "not a member of this room"));
    }
    let mut page = SearchHits {
        hits: Vec::new(),
        has_more: false,
        next_before: None,
    };
    if query.is_empty() || rooms.is_empty() {
        return Ok(Ok(page));
    }
    if rooms.len() > ROOMS_NAMED_MAX {
        rooms.clear();
    }
    let rows = session
        .query(
            SEARCH,
            &[
                &read.user.0,
                &query.tsquery(&rooms),
                &int(before.place),
                &before.room.0,
                &int(before.seq),
                &room,
                &int(read.limit as u64 + 1),
            ],
        )
        .await?;
    let (mut bytes, mut last) = (0, None);
    for row in &rows {
        let at = Before {
            place: uint(row, 0)?,
            room: room_id(row, 1)?,
            seq: uint(row, 2)?,
        };
        let message = message_for_user(row, 3)?;
        let text = message.text.as_deref().unwrap_or_default();
        // It may have changed since it was indexed.
        if query.finds(text) {
            bytes += text.len();
            let is_full = page.hits.len() >= read.limit || bytes > read.bytes_max;
            if is_full && !page.hits.is_empty() {
                page.has_more = true;
                break;
            }
            let room_id = at.room;
            page.hits.push(SearchHit { room_id, message });
        }
        last = Some(at);
    }
    // Some of what was read may not have been hits.
    page.has_more |= rows.len() > read.limit;
    let last = last.filter(|_| page.has_more);
    page.next_before = last.map(Before::to_text);
    Ok(Ok(page))
}
