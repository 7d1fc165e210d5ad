//! Blocks: what `chat_block` answers, and the list of whom a user blocks.

use super::row::{Failure, get, uint, user_id};
use super::session::Session;
use crate::chat::port::{BlocksRead, OpDone, OpOutcome, OpReply, Refusal};
use crate::protocol::block::{BlockChange, BlockedUser, BlocksListed};
use crate::protocol::{UnixMs, UserId};
use crate::store::blocks::{page_of, parse_cursor};
use crate::store::common::{from_json, int};
use serde::Deserialize;
use tokio_postgres::Row;

/// What came of a block, as `chat_block` tells it.
#[derive(Deserialize)]
struct Told {
    changed: bool,
    severed: bool,
    block_version: u64,
}

/// The outcome of a block that stands.
pub(super) fn decode(
    by: UserId,
    user: UserId,
    blocked: bool,
    row: &Row,
) -> Result<OpOutcome, Failure> {
    let told: Told = from_json(get(row, 4)?).map_err(Failure::Data)?;
    let block = BlockChange {
        by,
        user,
        blocked,
        severed: told.severed,
        version: told.block_version,
    };
    Ok(Ok(OpDone {
        reply: OpReply::Block {
            block,
            changed: told.changed,
        },
        events: Vec::new(),
    }))
}

/// A page of the users whom one blocks. `$1`: who; `$2`: after whom; `$3`: at most.
pub(super) const LIST: &str = "SELECT x.other_id, u.name, x.created_at
     FROM user_relationships x JOIN chat_users u ON u.user_id = x.other_id
     WHERE x.user_id = $1 AND x.other_id > $2 AND x.kind = 'block'
     ORDER BY x.other_id LIMIT $3";

/// The page, or `bad_request` for a cursor that we did not make.
pub(super) async fn list(
    session: &Session,
    read: &BlocksRead,
) -> Result<Result<BlocksListed, Refusal>, Failure> {
    let after = match parse_cursor(read.cursor.as_deref()) {
        Ok(after) => after,
        Err(refusal) => return Ok(Err(refusal)),
    };
    let limit = int(read.limit as u64 + 1);
    let rows = session
        .query(LIST, &[&read.user.0, &after.0, &limit])
        .await?;
    let user = |row| {
        Ok(BlockedUser {
            user_id: user_id(row, 0)?,
            name: get(row, 1)?,
            blocked_at: UnixMs(uint(row, 2)?),
        })
    };
    let users = rows.iter().map(user).collect::<Result<_, Failure>>()?;
    Ok(Ok(page_of(users, read.limit)))
}
