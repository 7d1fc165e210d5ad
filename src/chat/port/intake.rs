//! What other services tell the chat: their webhooks, as the store keeps them, and what the Main App says of
//! accounts.
//!
//! Every call may be repeated: what was done already is found, and changes nothing more.

use crate::protocol::ending::SessionsEnd;
use crate::protocol::webhook::{AccountEvent, WebhookSource};
use crate::protocol::{RoomId, UnixMs, UserId};

/// A webhook as it came, its signature right.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Webhook {
    /// Who sent it.
    pub source: WebhookSource,
    /// `webhook-id`.
    pub id: String,
    /// `webhook-timestamp`.
    pub signed_at: UnixMs,
    /// The bytes that were signed.
    pub body: Vec<u8>,
}

/// What a webhook was answered.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct WebhookAnswer {
    /// The status.
    pub status: u16,
    /// The body.
    pub body: String,
}

/// What is known of a webhook that came.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct WebhookTaken {
    /// Whether what came under this id before has the same body, or nothing had come.
    pub is_same: bool,
    /// What it was answered, if something was done for it.
    pub answer: Option<WebhookAnswer>,
}

/// A webhook as the store has it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct WebhookKept {
    /// As it came.
    pub webhook: Webhook,
    /// When.
    pub received_at: UnixMs,
    /// What it was answered.
    pub answer: Option<WebhookAnswer>,
    /// How often it was done again.
    pub replays: u32,
}

/// A profile that the Main App told.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ProfileTold {
    /// Whose.
    pub user: UserId,
    /// Of the Main App: the greatest holds.
    pub version: u64,
    /// The name.
    pub name: String,
    /// The picture.
    pub picture: Option<String>,
    /// When it was written, by the store's time.
    pub at: UnixMs,
    /// The rooms that the user is in.
    pub rooms: Vec<RoomId>,
}

/// What is asked.
#[derive(Clone, Debug)]
pub enum IntakeCall {
    /// Takes note of a webhook before anything is done for it.
    Take(Webhook),
    /// Takes note of what it was answered.
    Answered {
        /// Who sent it.
        source: WebhookSource,
        /// `webhook-id`.
        id: String,
        /// What.
        answer: WebhookAnswer,
        /// Whether those who run the service had it done again.
        is_replay: bool,
    },
    /// Does what the Main App says of an account. An unknown user becomes known.
    Sync {
        /// What it says.
        event: AccountEvent,
        /// When that was.
        at: UnixMs,
    },
    /// Profiles that were told after this time of the store, or then of a later user; `None`: only what time it is.
    Profiles {
        /// After then.
        after: Option<(UnixMs, UserId)>,
        /// At most so many, the earliest.
        limit: usize,
    },
    /// One webhook.
    Webhook(WebhookSource, String),
    /// Webhooks, the newest first.
    Webhooks {
        /// Only those for which nothing was done yet.
        is_open: bool,
        /// Received before then.
        before: Option<UnixMs>,
        /// At most so many.
        limit: usize,
    },
}

impl IntakeCall {
    /// Whether it may change something.
    pub fn writes(&self) -> bool {
        match self {
            IntakeCall::Take(_) | IntakeCall::Answered { .. } | IntakeCall::Sync { .. } => true,
            IntakeCall::Profiles { .. } | IntakeCall::Webhook(..) | IntakeCall::Webhooks { .. } => {
                false
            }
        }
    }
}

/// The answer to an [`IntakeCall`], of the same kind.
#[derive(Debug)]
pub enum IntakeAnswer {
    /// What is known of it.
    Taken(WebhookTaken),
    /// It is noted.
    Answered,
    /// What came of it.
    Synced {
        /// Whether it changed anything.
        is_changed: bool,
        /// What ends sessions of the user now.
        ends: Vec<SessionsEnd>,
    },
    /// The profiles.
    Profiles {
        /// By time and user.
        profiles: Vec<ProfileTold>,
        /// The store's time, if only that was asked.
        now: Option<UnixMs>,
    },
    /// The webhook, if it is kept.
    Webhook(Option<Box<WebhookKept>>),
    /// The webhooks.
    Webhooks(Vec<WebhookKept>),
}
