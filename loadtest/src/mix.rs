//! The mixed load: which kinds of operation there are, in which shares, and what is counted of each.

use std::collections::{BTreeMap, VecDeque};

use crate::random::Random;
use crate::stats::Latency;

macro_rules! kinds {
    ($( $(#[$doc:meta])* $variant:ident $name:literal $weight:literal $event:literal, )*) => {
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum OpKind { $( $(#[$doc])* $variant, )* }

        impl OpKind {
            pub const EACH: &[Self] = &[ $( Self::$variant, )* ];

            pub fn name(self) -> &'static str {
                match self { $( Self::$variant => $name, )* }
            }

            /// Its share where none is given.
            fn weight(self) -> u32 {
                match self { $( Self::$variant => $weight, )* }
            }

            /// The event that tells others of it; empty if none does.
            pub fn event(self) -> &'static str {
                match self { $( Self::$variant => $event, )* }
            }
        }
    };
}

kinds! {
    /// One in eight answers another message, one in eight names a member.
    Send "send" 30 "message.created",
    /// One in twenty is of another's message, one in twenty expects another revision, one in twenty
    /// says what is so already; of the others half expect the right one.
    Edit "edit" 4 "message.updated",
    Delete "delete" 1 "message.deleted",
    ReactionAdd "reaction_add" 8 "reaction added",
    ReactionRemove "reaction_remove" 3 "reaction removed",
    Delivered "delivered" 15 "receipt.updated",
    Read "read" 10 "receipt.updated",
    TypingStart "typing_start" 10 "typing.updated",
    TypingStop "typing_stop" 4 "typing.updated",
    PresenceSet "presence_set" 1 "presence.updated",
    PresenceSubscribe "presence_subscribe" 1 "presence.updated",
    HistoryNewest "history_newest" 4 "",
    HistoryBefore "history_before" 2 "",
    HistoryAfter "history_after" 2 "",
    RoomsList "rooms_list" 2 "",
    RoomGet "room_get" 2 "",
    /// A client goes and comes back.
    Connect "connect" 1 "",
    /// For the time at which a message was due, which stands in its text.
    Search "search" 1 "",
    Mute "mute" 1 "unread.updated",
    Archive "archive" 1 "unread.updated",
    /// Blocks a member of a room, or no longer.
    Block "block" 1 "user.blocks.updated",
    BlocksList "blocks_list" 1 "",
    /// A ticket, the bytes by HTTP, a message with the file.
    File "file" 2 "",
    /// Where a file is, and its bytes by HTTP.
    FileUrls "file_urls" 2 "",
    /// The same as by a socket, over HTTP.
    WebSend "http_send" 2 "message.created",
    /// A message that is acknowledged, once more over HTTP.
    WebAgain "http_again" 1 "",
    WebEdit "http_edit" 1 "message.updated",
    WebRead "http_read" 1 "receipt.updated",
    WebHistory "http_history" 1 "",
}

impl OpKind {
    /// Only where the server is a whole one.
    pub const MORE: &[Self] = &[
        Self::Search,
        Self::Mute,
        Self::Archive,
        Self::Block,
        Self::BlocksList,
        Self::File,
        Self::FileUrls,
        Self::WebSend,
        Self::WebAgain,
        Self::WebEdit,
        Self::WebRead,
        Self::WebHistory,
    ];
    /// Files, which only a single node keeps in a folder.
    pub const OF_FILES: &[Self] = &[Self::File, Self::FileUrls];

    /// No reply is promised.
    pub fn is_silent(self) -> bool {
        matches!(
            self,
            Self::Delivered | Self::Read | Self::TypingStart | Self::TypingStop
        )
    }
}

/// How often each kind is drawn.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Shares {
    weights: BTreeMap<OpKind, u32>,
}

impl Default for Shares {
    /// What any server of the protocol's sockets does.
    fn default() -> Self {
        let mut shares = Self::whole();
        shares.leave_out(OpKind::MORE);
        shares
    }
}

impl std::str::FromStr for Shares {
    type Err = String;

    /// `name=weight,…`: what is not named keeps its default.
    fn from_str(text: &str) -> Result<Self, String> {
        let mut shares = Self::whole();
        for part in text.split(',').filter(|part| !part.is_empty()) {
            let named = part.split_once('=').and_then(|(name, weight)| {
                let kind = OpKind::EACH.iter().find(|kind| kind.name() == name)?;
                Some((*kind, weight.parse().ok()?))
            });
            let Some((kind, weight)) = named else {
                let names: Vec<&str> = OpKind::EACH.iter().map(|kind| kind.name()).collect();
                return Err(format!("{part}: expected name=weight, of {names:?}"));
            };
            shares.weights.insert(kind, weight);
        }
        if shares.total() == 0 {
            return Err("nothing is left to do".to_owned());
        }
        Ok(shares)
    }
}

impl Shares {
    /// Everything.
    pub fn whole() -> Self {
        let weights = OpKind::EACH.iter().map(|kind| (*kind, kind.weight()));
        Self {
            weights: weights.collect(),
        }
    }

    /// Without these kinds.
    pub fn leave_out(&mut self, kinds: &[OpKind]) {
        for kind in kinds {
            self.weights.insert(*kind, 0);
        }
    }

    fn total(&self) -> u64 {
        self.weights.values().map(|weight| u64::from(*weight)).sum()
    }

    pub fn weight(&self, kind: OpKind) -> u32 {
        self.weights.get(&kind).copied().unwrap_or(0)
    }

    pub fn draw(&self, random: &mut Random) -> OpKind {
        let mut place = random.below(self.total());
        for (kind, weight) in &self.weights {
            if place < u64::from(*weight) {
                return *kind;
            }
            place -= u64::from(*weight);
        }
        OpKind::Send
    }
}

/// Operations that were due where they could not be done: each kind once, the first owed first.
#[derive(Default)]
pub struct Owed {
    kinds: VecDeque<OpKind>,
}

impl Owed {
    pub fn put(&mut self, kind: OpKind) {
        if !self.kinds.contains(&kind) {
            self.kinds.push_back(kind);
        }
    }

    pub fn take(&mut self) -> Option<OpKind> {
        self.kinds.pop_front()
    }
}

/// What was counted of one kind.
#[derive(Default)]
pub struct KindStats {
    pub asked: u64,
    /// Times it was due, but nobody was there to ask, or nothing to ask for: it is owed, once.
    pub not_asked: u64,
    pub acked: u64,
    /// Acked as done before, or as it was.
    pub unchanged: u64,
    pub refused: BTreeMap<String, u64>,
    /// Asked on a connection that ended first.
    pub unanswered: u64,
    pub latency: Latency,
}

impl KindStats {
    pub fn refused(&mut self, code: &str) {
        *self.refused.entry(code.to_owned()).or_default() += 1;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares_are_read_and_drawn_by_weight() {
        let shares: Shares = "send=1,edit=3".parse().unwrap();
        assert_eq!(shares.weight(OpKind::Edit), 3);
        assert_eq!(shares.weight(OpKind::Read), OpKind::Read.weight());
        let only = OpKind::EACH.iter().map(|kind| format!("{}=0", kind.name()));
        let only = only.collect::<Vec<_>>().join(",");
        assert!(only.parse::<Shares>().is_err());
        let shares: Shares = format!("{only},edit=3,delete=1").parse().unwrap();
        let mut random = Random::new(5);
        let drawn: Vec<OpKind> = (0..4000).map(|_| shares.draw(&mut random)).collect();
        let edits = drawn.iter().filter(|kind| **kind == OpKind::Edit).count();
        assert!((2800..3200).contains(&edits), "{edits}");
        assert!(
            drawn
                .iter()
                .all(|kind| matches!(kind, OpKind::Edit | OpKind::Delete))
        );
    }

    #[test]
    fn what_is_owed_comes_once_and_in_turn() {
        let mut owed = Owed::default();
        for kind in [OpKind::Edit, OpKind::Search, OpKind::Edit] {
            owed.put(kind);
        }
        assert_eq!(owed.take(), Some(OpKind::Edit));
        owed.put(OpKind::Edit);
        assert_eq!(owed.take(), Some(OpKind::Search));
        assert_eq!(owed.take(), Some(OpKind::Edit));
        assert_eq!(owed.take(), None);
    }

    #[test]
    fn a_wrong_share_is_refused() {
        for text in ["nonsense=1", "send", "send=-1", "send=x"] {
            assert!(text.parse::<Shares>().is_err(), "{text}");
        }
    }
}
