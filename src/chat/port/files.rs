//! Files: what a shard asks of those who know where they are kept ([`Files`]), and what these keep in the store
//! ([`UploadCall`]).
//!
//! **The life of an upload.** `created` with its ticket; when a message is to use it, its object is looked at, once:
//! `checked`, `too_large` or `wrong` from then on. A message makes it `used`, in its own transaction, which alone
//! decides, so that one upload is in one message. What no message uses in a day, what a deleted message used and
//! what an erased user brought is `removed`: first in the store, then the object, then the row.

use super::Refusal;
use crate::protocol::object::ObjectKey;
use crate::protocol::upload::{AttachmentUrlsTold, UploadKind, UploadTicket};
use crate::protocol::{ErrorCode, RoomId, Seq, UnixMs, UploadId, UserId};

/// The files of a message, as its sender gives them.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct SentFiles {
    /// The kind of the message, and of its files.
    pub kind: UploadKind,
    /// One or more, none twice.
    pub files: Vec<SentFile>,
}

/// A file of a message, as its sender gives it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct SentFile {
    /// The upload.
    pub upload: UploadId,
    /// Pixels.
    pub width: Option<u32>,
    /// Pixels.
    pub height: Option<u32>,
    /// ms.
    pub duration_ms: Option<u64>,
    /// What to show until it is there.
    pub placeholder: Option<String>,
}

/// The shard's name for a question about files.
pub type FilesAskId = u64;

/// What a shard asks about files.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum FilesAsk {
    /// A ticket for a file, of which all is checked that needs nobody else.
    Create(NewFile),
    /// Where to fetch these from.
    Urls(NamedUploads),
    /// Looks at those that were not looked at yet, before a message uses them, and keeps what it saw. What is found
    /// wrong is no refusal: the store refuses the message, unless it is there already.
    Check(NamedUploads),
}

/// A file that a user wants to bring.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct NewFile {
    /// Who.
    pub owner: UserId,
    /// For a message in this room.
    pub room: RoomId,
    /// What it is for.
    pub kind: UploadKind,
    /// What it is called.
    pub name: String,
    /// Its bytes; 1 or more.
    pub size: u64,
    /// One of [`crate::protocol::media`].
    pub content_type: &'static str,
    /// The hash of its bytes, if it was told.
    pub sha256: Option<[u8; 32]>,
}

/// Uploads, as somebody names them for a room.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct NamedUploads {
    /// The room.
    pub room: RoomId,
    /// Who.
    pub user: UserId,
    /// Which, without repeats.
    pub uploads: Vec<UploadId>,
}

/// What a shard is told about files.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum FilesTold {
    /// To [`FilesAsk::Create`].
    Ticket(UploadTicket),
    /// To [`FilesAsk::Urls`].
    Urls(AttachmentUrlsTold),
    /// To [`FilesAsk::Check`].
    Checked,
}

/// Why it is not told.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct FilesRefusal {
    /// Why.
    pub code: ErrorCode,
    /// For the developer of the client.
    pub message: &'static str,
    /// When to come back, ms, if that is known.
    pub retry_after_ms: Option<u64>,
}

impl FilesRefusal {
    /// Without a time to come back.
    pub fn new(code: ErrorCode, message: &'static str) -> FilesRefusal {
        FilesRefusal {
            code,
            message,
            retry_after_ms: None,
        }
    }
}

impl From<Refusal> for FilesRefusal {
    fn from(Refusal { code, message }: Refusal) -> FilesRefusal {
        FilesRefusal::new(code, message)
    }
}

/// What comes of a question about files.
pub type FilesAnswer = Result<FilesTold, FilesRefusal>;

/// Where the answer goes. Called exactly once, from any thread; must not block.
pub type FilesDone = Box<dyn FnOnce(FilesAnswer) + Send>;

/// Who knows where files are kept. Asked from any thread; must not block. Answers within
/// [`crate::limits::FILES_MS_MAX`].
pub trait Files: Send + Sync {
    /// Asks.
    fn ask(&self, ask: FilesAsk, done: FilesDone);
}

/// A node without a place for files.
#[derive(Clone, Copy, Debug)]
pub struct NoFiles;

impl Files for NoFiles {
    fn ask(&self, _: FilesAsk, done: FilesDone) {
        let message = "files are not kept here";
        done(Err(FilesRefusal::new(ErrorCode::Unavailable, message)));
    }
}

/// How far an upload is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum UploadState {
    /// There is a ticket; whether anything was brought is not known.
    Created,
    /// It is what was declared.
    Checked,
    /// It has more bytes than were declared.
    TooLarge,
    /// It has fewer bytes, is of another type or has another hash.
    Wrong,
    /// A message has it.
    Used,
    /// It is no longer there, or soon.
    Removed,
}

impl UploadState {
    /// All of them.
    pub const ALL: [UploadState; 6] = [
        UploadState::Created,
        UploadState::Checked,
        UploadState::TooLarge,
        UploadState::Wrong,
        UploadState::Used,
        UploadState::Removed,
    ];

    /// As the store keeps it.
    pub fn name(self) -> &'static str {
        match self {
            UploadState::Created => "created",
            UploadState::Checked => "checked",
            UploadState::TooLarge => "too_large",
            UploadState::Wrong => "wrong",
            UploadState::Used => "used",
            UploadState::Removed => "removed",
        }
    }

    /// The inverse of [`UploadState::name`].
    pub fn from_name(name: &str) -> Option<UploadState> {
        UploadState::ALL.into_iter().find(|it| it.name() == name)
    }

    /// Why a message may not use an upload that is so far, of the message's kind and its sender's own for its room.
    pub fn refusal(self, is_expired: bool) -> Option<Refusal> {
        let (code, message) = match self {
            UploadState::Checked => return None,
            UploadState::Created if is_expired => {
                (ErrorCode::Gone, "the ticket of the upload has expired")
            }
            UploadState::Created => (ErrorCode::NotFound, "nothing was uploaded yet"),
            UploadState::TooLarge => (
                ErrorCode::TooLarge,
                "what was uploaded is larger than was declared",
            ),
            UploadState::Wrong => (
                ErrorCode::UnsupportedMedia,
                "what was uploaded is not what was declared",
            ),
            UploadState::Used => (ErrorCode::Gone, "the upload is in another message"),
            UploadState::Removed => (ErrorCode::Gone, "the upload was removed"),
        };
        Some(Refusal { code, message })
    }
}

/// There is no such upload, as far as its user may know.
pub fn no_upload() -> Refusal {
    Refusal {
        code: ErrorCode::NotFound,
        message: "no such upload of this user for this room",
    }
}

/// A message of one kind with a file of another.
pub fn another_kind() -> Refusal {
    Refusal {
        code: ErrorCode::BadRequest,
        message: "an upload is of another kind than the message",
    }
}

/// An upload as the store has it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Upload {
    /// Its name.
    pub id: UploadId,
    /// What it is for.
    pub kind: UploadKind,
    /// Where its bytes are.
    pub key: ObjectKey,
    /// What it is called.
    pub name: String,
    /// Its bytes.
    pub size: u64,
    /// What it is.
    pub content_type: String,
    /// The hash of its bytes, if it was told.
    pub sha256: Option<[u8; 32]>,
    /// How far it is.
    pub state: UploadState,
    /// The message that has it.
    pub message_seq: Option<Seq>,
}

/// What one user may bring.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct UploadQuota {
    /// Uploads in [`crate::limits::UPLOAD_QUOTA_MS`].
    pub uploads: u32,
    /// Their bytes.
    pub bytes: u64,
}

/// What is asked of the store.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum UploadCall {
    /// Takes note of a ticket. Only for who may send in the room (`forbidden`, with the words of a send).
    Create {
        /// Its name; asked again with the same, it is the same.
        id: UploadId,
        /// Where its bytes will be.
        key: ObjectKey,
        /// What it is.
        file: NewFile,
        /// What its owner may bring, this one included.
        quota: UploadQuota,
    },
    /// Those of these that are this user's, for this room.
    Own(NamedUploads),
    /// Those of these that are in messages of this room, for a member (`forbidden`).
    Shown(NamedUploads),
    /// What was seen of uploads that were not looked at before.
    Seen(Vec<(UploadId, UploadState)>),
    /// Uploads to remove: those whose time has come, or all of one user. Whoever is told them has them for
    /// [`REMOVE_LEASE_MS`], and no message uses them any more.
    ToRemove {
        /// All of this user.
        owner: Option<UserId>,
        /// At most so many.
        limit: usize,
    },
    /// Their bytes are gone.
    Removed(Vec<UploadId>),
}

/// For how long uploads to remove are one node's, ms.
pub const REMOVE_LEASE_MS: u64 = 30_000;

impl UploadCall {
    /// Whether it may change something.
    pub fn writes(&self) -> bool {
        match self {
            UploadCall::Create { .. }
            | UploadCall::Seen(_)
            | UploadCall::ToRemove { .. }
            | UploadCall::Removed(_) => true,
            UploadCall::Own(_) | UploadCall::Shown(_) => false,
        }
    }
}

/// The answer to an [`UploadCall`], of the same kind.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum UploadAnswer {
    /// Until when the ticket is good, or why there is none.
    Created(Result<UnixMs, FilesRefusal>),
    /// In any order.
    Own(Vec<Upload>),
    /// In any order, or why nothing is told.
    Shown(Result<Vec<Upload>, Refusal>),
    /// It is noted.
    Seen,
    /// The first ones.
    ToRemove(Vec<Upload>),
    /// It is noted.
    Removed,
}

/// What a user who brings too much is told.
pub fn over_quota(retry_after_ms: u64) -> FilesRefusal {
    FilesRefusal {
        code: ErrorCode::RateLimited,
        message: "more uploads than a user may bring in a day",
        retry_after_ms: Some(retry_after_ms),
    }
}
