//! Files: a place to bring one to, a file in a message, and where to fetch it from.
//!
//! The bytes go from the client to where files are kept, and from there to who reads them; none of them goes through
//! here.

use super::ids::{RoomId, UploadId, whole, whole_or_none};
use super::object::Bucket;
use super::text::Text;
use super::time::UnixMs;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// What a file is for; the kind of the message that it can be in.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum UploadKind {
    /// To be seen in the conversation.
    Image,
    /// Any other file.
    File,
    /// A voice note.
    Voice,
}

impl UploadKind {
    /// All of them.
    pub const ALL: [UploadKind; 3] = [UploadKind::Image, UploadKind::File, UploadKind::Voice];

    /// As it stands on the wire and in the store.
    pub fn name(self) -> &'static str {
        match self {
            UploadKind::Image => "image",
            UploadKind::File => "file",
            UploadKind::Voice => "voice",
        }
    }

    /// The inverse of [`UploadKind::name`].
    pub fn from_name(name: &str) -> Option<UploadKind> {
        UploadKind::ALL.into_iter().find(|it| it.name() == name)
    }

    /// Where its bytes lie.
    pub fn bucket(self) -> Bucket {
        match self {
            UploadKind::Image => Bucket::Images,
            UploadKind::File => Bucket::Files,
            UploadKind::Voice => Bucket::Voice,
        }
    }
}

/// A file to bring.
#[derive(Debug, Deserialize, JsonSchema)]
pub struct UploadCreate {
    /// The room that it will be sent in.
    pub room_id: RoomId,
    /// What it is for.
    pub kind: UploadKind,
    /// What it is called, at most [`crate::limits::FILE_NAME_CHARS_MAX`] characters.
    pub name: Text,
    /// Its bytes, exactly.
    #[schemars(range(min = 1))]
    #[serde(deserialize_with = "whole")]
    pub size: u64,
    /// What it is; one of the types that are taken for this kind. Parameters are left out.
    pub content_type: Text,
    /// SHA-256 of its bytes, 64 hexadecimal digits: then no others are taken.
    #[serde(default)]
    pub sha256: Option<Text>,
}

/// `data` of the ack of `upload.create`: how to bring the file, by a POST of `multipart/form-data` with all `fields`
/// and then the bytes as `file`.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, JsonSchema)]
pub struct UploadTicket {
    /// The upload, for `message.send`.
    pub upload_id: UploadId,
    /// `POST`.
    pub method: &'static str,
    /// Where to; a path on this server if it begins with a slash.
    pub url: String,
    /// What to send before the file.
    pub fields: BTreeMap<String, String>,
    /// Until when.
    pub expires_at: UnixMs,
}

/// A file to send in a message.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
pub struct SendAttachment {
    /// The upload, of the message's kind, by the same user for the same room, in no other message.
    pub upload_id: UploadId,
    /// Pixels from left to right, up to [`crate::limits::IMAGE_SIDE_MAX`].
    #[serde(default)]
    #[schemars(range(min = 1, max = 65_535))]
    pub width: Option<u32>,
    /// Pixels from top to bottom, up to [`crate::limits::IMAGE_SIDE_MAX`].
    #[serde(default)]
    #[schemars(range(min = 1, max = 65_535))]
    pub height: Option<u32>,
    /// How long it lasts, ms, up to [`crate::limits::DURATION_MS_MAX`].
    #[serde(default, deserialize_with = "whole_or_none")]
    #[schemars(range(max = 86_400_000))]
    pub duration_ms: Option<u64>,
    /// What to show until it is there, a blur hash or the like: visible ASCII, at most
    /// [`crate::limits::PLACEHOLDER_BYTES_MAX`] bytes.
    #[serde(default)]
    pub placeholder: Option<Text>,
}

/// Files of messages to fetch.
#[derive(Debug, Deserialize, JsonSchema)]
pub struct AttachmentUrls {
    /// The room of the messages.
    pub room_id: RoomId,
    /// The files, at most [`crate::limits::FILE_URLS_MAX`].
    pub upload_ids: Vec<UploadId>,
}

/// `data` of the ack of `attachment.urls`.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, JsonSchema)]
pub struct AttachmentUrlsTold {
    /// Where to fetch each from.
    pub urls: Vec<AttachmentUrl>,
    /// Those of the asked that are in no message of this room, or no longer.
    pub missing: Vec<UploadId>,
}

/// Where to fetch a file from, without further credentials.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, JsonSchema)]
pub struct AttachmentUrl {
    /// The file.
    pub upload_id: UploadId,
    /// Its address; a path on this server if it begins with a slash.
    pub url: String,
    /// Until when, at the least.
    pub expires_at: UnixMs,
}
