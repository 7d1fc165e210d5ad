//! What the checker can find, each kind with its one meaning.

use std::collections::BTreeMap;

use crate::limits::FINDING_EXAMPLES_MAX;

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    /// An acknowledged message stands nowhere in the history.
    AckedLost,
    /// An ack names another message's place, another room, or a place that something else took.
    AckLied,
    /// `duplicate` says the contrary of what happened.
    WrongDuplicateFlag,
    /// One message has two places in its room.
    DoubledMessage,
    /// A connection got the same event twice.
    DoubledDelivery,
    /// A connection's events of a room skipped a `seq` without a word.
    Gap,
    /// An event came after one with a greater `seq`.
    OutOfOrder,
    /// A member never got an event that the room has.
    LostDelivery,
    /// Two members, or a member and the history, have different content at one `seq`.
    DifferentContent,
    /// A text or sender is not what was sent.
    AlteredMessage,
    /// A delivered event does not stand in the history.
    DeliveredNotStored,
    /// A message of this run that was never sent.
    InventedMessage,
    /// A message stands in the history although the server refused it for good.
    RefusedStored,
    /// Sends of one connection to one room got their places in another order.
    SenderOrder,
    /// A `seq` is missing in the history, or its pages do not fit together.
    HistoryGap,
    /// `recovered` and what `ready` says around it do not fit the client's position.
    WrongResume,
    /// The store holds less than it had delivered.
    AheadOfServer,
    /// The epoch changed although no history was replaced.
    EpochChanged,
    /// `ts` of a later event lies before that of an earlier one.
    TimeWentBack,
    /// A send was refused for good although nothing was wrong with it.
    UnexpectedRefusal,
    /// A send had neither ack nor error when the run ended.
    Unanswered,
    /// An event of a room that the client does not take part in.
    NotAMember,
    /// A frame that is not what the protocol says.
    BadFrame,
    /// The server told a client to stop, or spoke no WebSocket.
    ClientStopped,
    /// An acknowledged edit, deletion or reaction is not in the room at its `seq`.
    ChangeLost,
    /// A change of a message that nobody asked for, or more often than it was asked for.
    InventedChange,
    /// A message is shown in a state that does not follow from its events.
    WrongState,
    /// A reaction was put twice, taken back twice, or counted wrongly.
    Miscounted,
    /// A deleted message was changed.
    ChangedAfterDelete,
    /// `changed` says the contrary of what happened.
    WrongChangedFlag,
    /// What had to be refused was done.
    MissingRefusal,
    /// A connection was told that a member is less far than it was told before.
    WatermarkBack,
    /// A member is told to be further than they ever said, or than the room.
    WatermarkAhead,
    /// A receipt is not kept.
    WatermarkLost,
    /// `unread` is not the number of messages after `read_seq`.
    WrongUnread,
    /// Somebody types who is no member, never said so, or stopped long ago.
    WrongTyping,
    /// Presence of a user for whom the connection had not asked.
    WrongPresence,
    /// A file has no address, or other bytes than were brought.
    WrongFile,
    /// A search finds what the client may not see, or not what is there.
    WrongSearch,
    /// The list of whom a user blocks is another one than was acknowledged.
    WrongBlocks,
}

impl Kind {
    pub fn name(self) -> &'static str {
        match self {
            Self::AckedLost => "acked_lost",
            Self::AckLied => "ack_lied",
            Self::WrongDuplicateFlag => "wrong_duplicate_flag",
            Self::DoubledMessage => "doubled_message",
            Self::DoubledDelivery => "doubled_delivery",
            Self::Gap => "gap",
            Self::OutOfOrder => "out_of_order",
            Self::LostDelivery => "lost_delivery",
            Self::DifferentContent => "different_content",
            Self::AlteredMessage => "altered_message",
            Self::DeliveredNotStored => "delivered_not_stored",
            Self::InventedMessage => "invented_message",
            Self::RefusedStored => "refused_stored",
            Self::SenderOrder => "sender_order",
            Self::HistoryGap => "history_gap",
            Self::WrongResume => "wrong_resume",
            Self::AheadOfServer => "ahead_of_server",
            Self::EpochChanged => "epoch_changed",
            Self::TimeWentBack => "time_went_back",
            Self::UnexpectedRefusal => "unexpected_refusal",
            Self::Unanswered => "unanswered",
            Self::NotAMember => "not_a_member",
            Self::BadFrame => "bad_frame",
            Self::ClientStopped => "client_stopped",
            Self::ChangeLost => "change_lost",
            Self::InventedChange => "invented_change",
            Self::WrongState => "wrong_state",
            Self::Miscounted => "miscounted",
            Self::ChangedAfterDelete => "changed_after_delete",
            Self::WrongChangedFlag => "wrong_changed_flag",
            Self::MissingRefusal => "missing_refusal",
            Self::WatermarkBack => "watermark_back",
            Self::WatermarkAhead => "watermark_ahead",
            Self::WatermarkLost => "watermark_lost",
            Self::WrongUnread => "wrong_unread",
            Self::WrongTyping => "wrong_typing",
            Self::WrongPresence => "wrong_presence",
            Self::WrongFile => "wrong_file",
            Self::WrongSearch => "wrong_search",
            Self::WrongBlocks => "wrong_blocks",
        }
    }
}

/// All findings counted, the first ones in words.
#[derive(Clone, Debug, Default)]
pub struct Findings {
    counts: BTreeMap<Kind, u64>,
    examples: Vec<String>,
}

impl Findings {
    pub fn found(&mut self, kind: Kind, words: impl FnOnce() -> String) {
        self.found_many(kind, 1, words);
    }

    pub fn found_many(&mut self, kind: Kind, count: u64, words: impl FnOnce() -> String) {
        let known = self.counts.entry(kind).or_default();
        // A kind that floods must not hide the others: a few examples of each are enough.
        if *known < 5 && self.examples.len() < FINDING_EXAMPLES_MAX {
            self.examples.push(format!("{}: {}", kind.name(), words()));
        }
        *known += count;
    }

    pub fn count(&self, kind: Kind) -> u64 {
        self.counts.get(&kind).copied().unwrap_or(0)
    }

    pub fn total(&self) -> u64 {
        self.counts.values().sum()
    }

    pub fn is_clean(&self) -> bool {
        self.counts.is_empty()
    }

    pub fn kinds(&self) -> Vec<Kind> {
        self.counts.keys().copied().collect()
    }

    pub fn by_name(&self) -> BTreeMap<&'static str, u64> {
        self.counts
            .iter()
            .map(|(kind, count)| (kind.name(), *count))
            .collect()
    }

    pub fn examples(&self) -> &[String] {
        &self.examples
    }
}
