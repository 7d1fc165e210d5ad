//! What is given of a user's data by `GET /v1/admin/users/{user_id}/export`: the entries of the archive's files.
//!
//! What others wrote is not in it, nor what they did: of a message that mentions the user only where it stands.

use super::ids::{ClientMsgId, RoomId, Seq, UploadId, UserId};
use super::time::UnixMs;
use super::upload::UploadKind;
use super::view::{Attachment, Mention, MessageKind, Role, RoomKind};
use schemars::JsonSchema;
use serde::Serialize;

/// The description that lies in the archive.
pub const README: &str = include_str!("export.md");

/// A zip archive: no JSON.
#[derive(Debug)]
pub struct AdminArchive;

impl AdminArchive {
    /// What it is, as a media type.
    pub const MEDIA_TYPE: &str = "application/zip";
}

impl JsonSchema for AdminArchive {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> std::borrow::Cow<'static, str> {
        "AdminArchive".into()
    }

    fn json_schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
        schemars::json_schema!({
            "type": "string",
            "contentMediaType": AdminArchive::MEDIA_TYPE,
        })
    }
}

/// `rooms.json`: a room that the user is or was a member of, and how far they are there.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub struct ExportRoom {
    /// The room.
    pub room_id: RoomId,
    /// Direct or group.
    pub kind: RoomKind,
    /// The title of a group, as long as they are a member.
    pub title: Option<String>,
    /// Of a direct room, who the other one is.
    pub with: Option<UserId>,
    /// What they are there, or were at last.
    pub role: Role,
    /// Since when, the last time.
    pub joined_at: UnixMs,
    /// Until when; null: they are.
    pub left_at: Option<UnixMs>,
    /// Read up to here.
    pub read_seq: Seq,
    /// Received up to here.
    pub delivered_seq: Seq,
    /// Muted until then.
    pub muted_until: Option<UnixMs>,
    /// The room's newest event when it was archived.
    pub archived_seq: Option<Seq>,
}

/// `messages.json`: a message of the user in its current state; of earlier ones only their number is kept.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub struct ExportMessage {
    /// The room.
    pub room_id: RoomId,
    /// The message.
    pub seq: Seq,
    /// The user's own name for it.
    pub client_msg_id: Option<ClientMsgId>,
    /// What it is.
    pub kind: MessageKind,
    /// The text; null: it was deleted, or has files alone.
    pub text: Option<String>,
    /// Its files; where their bytes are `files.json` says.
    pub attachments: Vec<Attachment>,
    /// The message it answers.
    pub reply_to_seq: Option<Seq>,
    /// Who is named in it.
    pub mentions: Vec<Mention>,
    /// 1, and one more with each edit.
    pub revision: u32,
    /// When it was sent.
    pub created_at: UnixMs,
    /// When it was last edited.
    pub edited_at: Option<UnixMs>,
    /// When it was deleted.
    pub deleted_at: Option<UnixMs>,
}

/// `reactions.json`: an emoji that the user put on a message.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub struct ExportReaction {
    /// The room.
    pub room_id: RoomId,
    /// The message.
    pub message_seq: Seq,
    /// What.
    pub emoji: String,
}

/// `mentions.json`: a message of another that names the user.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub struct ExportMention {
    /// The room.
    pub room_id: RoomId,
    /// The message.
    pub message_seq: Seq,
    /// When it was sent.
    pub created_at: UnixMs,
}

/// `reports.json`: a message that the user reported.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub struct ExportReport {
    /// The room.
    pub room_id: RoomId,
    /// The message.
    pub message_seq: Seq,
    /// The revision that they saw.
    pub revision: u32,
    /// When.
    pub created_at: UnixMs,
}

/// `files.json`: a file that the user brought, for a message or before it.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub struct ExportFile {
    /// The upload.
    pub upload_id: UploadId,
    /// The room that it was brought for.
    pub room_id: RoomId,
    /// The message that has it.
    pub message_seq: Option<Seq>,
    /// What it is for.
    pub kind: UploadKind,
    /// What the user calls it.
    pub name: String,
    /// Its bytes, as they were declared.
    pub size: u64,
    /// What it is, as it was declared.
    pub content_type: String,
    /// Its SHA-256 in hexadecimal digits, if it was declared.
    pub sha256: Option<String>,
    /// When they asked to bring it.
    pub created_at: UnixMs,
    /// Where in the archive its bytes are; null: none of them are.
    pub path: Option<String>,
    /// Why not all of them are; null: all are. With a `path`, the first part is.
    pub missing: Option<ExportMissing>,
}

/// Why a file is not in the archive, or not all of it.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum ExportMissing {
    /// It is not where this server looks: never brought, removed, or in another server's own folder.
    NotFound,
    /// It could not be read.
    Unreadable,
    /// Its turn did not come: time was over, or it came to be known when the files were written.
    NotTaken,
}

/// `blocks.json`: somebody whom the user blocks.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub struct ExportBlock {
    /// Whom.
    pub user_id: UserId,
    /// Since when.
    pub created_at: UnixMs,
}
