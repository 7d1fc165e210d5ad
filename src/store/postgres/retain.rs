//! Drops what is older than rooms keep it: what `chat_retain_next` and `chat_retain` are asked. Each call is one
//! statement, and may be repeated.

use super::row::{Failure, get};
use super::session::Session;
use crate::chat::port::upkeep::{
    RETAIN_LEASE_MS, RETAIN_ROOMS, RETAIN_SLACK_MS, RETAIN_STRETCH, UpkeepDone,
};
use crate::protocol::{RoomId, UnixMs};
use crate::store::common::int;
use uuid::Uuid;

/// Rooms that have something to drop.
pub(super) const NEXT: &str = "SELECT room_id FROM chat_retain_next($1, $2, $3, $4, $5, $6)";
/// A stretch of a room.
pub(super) const STEP: &str = "SELECT chat_retain($1, $2, $3, $4, $5)";

/// Rooms that have something to drop, if nobody else drops.
pub(super) async fn next(
    session: &Session,
    now: Option<UnixMs>,
    held: bool,
    days: u32,
) -> Result<UpkeepDone, Failure> {
    let now = now.map(|now| int(now.0));
    let (lease, slack) = (int(RETAIN_LEASE_MS), int(RETAIN_SLACK_MS));
    let (days, rooms_max) = (i64::from(days), RETAIN_ROOMS as i32);
    let rows = session
        .query(NEXT, &[&now, &held, &lease, &days, &slack, &rooms_max])
        .await?;
    if rows.is_empty() {
        return Ok(UpkeepDone::RetainNext(None));
    }
    let mut rooms = Vec::with_capacity(rows.len() - 1);
    for row in &rows {
        rooms.extend(get::<Option<Uuid>>(row, 0)?.map(RoomId));
    }
    Ok(UpkeepDone::RetainNext(Some(rooms)))
}

/// Drops the next stretch of a room.
pub(super) async fn step(
    session: &Session,
    now: Option<UnixMs>,
    room: RoomId,
    days: u32,
) -> Result<UpkeepDone, Failure> {
    let now = now.map(|now| int(now.0));
    let (stretch, lease) = (int(RETAIN_STRETCH), int(RETAIN_LEASE_MS));
    let rows = session
        .query(STEP, &[&now, &room.0, &i64::from(days), &stretch, &lease])
        .await?;
    let Some(row) = rows.first() else {
        return Err(Failure::Data("a step without an answer".to_owned()));
    };
    Ok(UpkeepDone::Retained(get(row, 0)?))
}
