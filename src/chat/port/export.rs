//! What the store has of one user, read page by page, each of bounded work, in an order of its own: by room, and within
//! a room by event.

use super::files::Upload;
use crate::protocol::export::{
    ExportBlock, ExportMention, ExportMessage, ExportReaction, ExportReport, ExportRoom,
};
use crate::protocol::{RoomId, Seq, UnixMs, UploadId, UserId};

/// Rooms, blocks or uploads of a page; one with fewer is the last.
pub const EXPORT_PAGE: usize = 200;
/// Events of a room that are looked through for a page.
pub const EXPORT_STRETCH: u64 = 500;

/// A page to read.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct ExportRead {
    /// Whose.
    pub user: UserId,
    /// Of what.
    pub part: ExportPart,
}

/// What is read.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum ExportPart {
    /// The rooms that they are or were in, after this one.
    Rooms(Option<RoomId>),
    /// Whom they block, after this one.
    Blocks(Option<UserId>),
    /// What they brought, after this one, by when it was asked for.
    Uploads(Option<(UnixMs, UploadId)>),
    /// What they did in a room, or what names them, in the stretch after this event.
    InRoom(ExportKind, RoomId, Seq),
}

/// What is read of a room.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum ExportKind {
    /// Their messages.
    Messages,
    /// Their reactions, by the messages.
    Reactions,
    /// Messages of others that name them.
    Mentions,
    /// What they reported, by the messages.
    Reports,
}

/// A page.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ExportPage {
    /// What was found.
    pub found: ExportFound,
    /// Of a room: the event after which it goes on, if it does.
    pub next: Option<Seq>,
}

/// What was found: of the kind that was asked for.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum ExportFound {
    /// By id.
    Rooms(Vec<ExportRoom>),
    /// By id.
    Blocks(Vec<ExportBlock>),
    /// By `seq`.
    Messages(Vec<ExportMessage>),
    /// By when they were asked for, and by id.
    Uploads(Vec<ExportUpload>),
    /// By message.
    Reactions(Vec<ExportReaction>),
    /// By `seq`.
    Mentions(Vec<ExportMention>),
    /// By message.
    Reports(Vec<ExportReport>),
}

/// What a user brought, or was about to. What is removed already is none.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ExportUpload {
    /// The upload.
    pub upload: Upload,
    /// The room that it was for.
    pub room: RoomId,
    /// When its ticket was given.
    pub created_at: UnixMs,
}
