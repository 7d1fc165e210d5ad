//! Blocks as every backend decides them: the words of refusals, and pages.

use crate::chat::port::Refusal;
use crate::protocol::block::{BlockedUser, BlocksListed};
use crate::protocol::{ErrorCode, RoomId, UserId};
use uuid::Uuid;

/// Whether the room of a block is that of the two. It is looked at before it comes to the store; looked
/// at again, because by that room the block and what it forbids exclude each other.
pub(super) fn is_well_formed(room: RoomId, actor: UserId, user: UserId) -> bool {
    actor != user && room == RoomId::direct(actor, user)
}

/// Of oneself, or by another room.
pub(super) fn malformed() -> Refusal {
    Refusal {
        code: ErrorCode::BadRequest,
        message: "not a block of another user",
    }
}

/// One more than may be.
pub(super) fn too_many() -> Refusal {
    Refusal {
        code: ErrorCode::TooLarge,
        message: "too many users are blocked",
    }
}

/// After whom a page begins.
pub(super) fn parse_cursor(cursor: Option<&str>) -> Result<UserId, Refusal> {
    let Some(cursor) = cursor else {
        return Ok(UserId(Uuid::nil()));
    };
    let user = Uuid::try_parse(cursor).map(UserId);
    user.map_err(|_| Refusal {
        code: ErrorCode::BadRequest,
        message: "no such cursor",
    })
}

/// The page of what was read, one more than fits if there are more.
pub(super) fn page_of(mut users: Vec<BlockedUser>, limit: usize) -> BlocksListed {
    let more = users.len() > limit;
    users.truncate(limit);
    let last = users.last().filter(|_| more);
    BlocksListed {
        next_cursor: last.map(|user| user.user_id.0.simple().to_string()),
        users,
    }
}
