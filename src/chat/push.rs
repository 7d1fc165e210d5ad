//! Whom a message is to reach who has no connection: pure rules, by what the store and the shards know when it is
//! decided, a moment after the message.
//!
//! One too many rather than none: what is not known is taken as if it did not stand in the way.

use super::port::hooks::{PushMember, PushMessage};
use crate::limits;
use crate::protocol::view::{Mention, MessageKind};
use crate::protocol::{UnixMs, UserId};

/// Why somebody is not told of a message.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Silent {
    /// It is no message of a person, or is deleted.
    NoMessage,
    /// It was written before anybody wanted to be told.
    TooOld,
    /// It is their own.
    Own,
    /// They joined later.
    Later,
    /// They have read it.
    Read,
    /// They muted the room.
    Muted,
    /// One of the two blocks the other.
    Blocked,
    /// The room is large, and they are not named.
    Crowd,
    /// They have a connection.
    Connected,
}

/// Whether a message names a member: themselves, not everybody.
pub fn names(message: &PushMessage, user: UserId) -> bool {
    message.mentions.contains(&Mention::User(user))
}

/// What of the world decides, beside the message and the member.
#[derive(Clone, Copy, Debug)]
pub struct PushFacts {
    /// The time.
    pub now: UnixMs,
    /// Messages written before are not told.
    pub since: UnixMs,
    /// How many members the room has.
    pub member_count: u32,
    /// Whether one of author and member blocks the other.
    pub is_blocked: bool,
}

/// Whether a member is to be told of a message if they have no connection. Who mutes a room hears nothing of it, not
/// even when they are named; in a large room only those are told who are.
///
/// # Errors
/// [`Silent`]: why not.
pub fn wants(message: &PushMessage, member: &PushMember, facts: &PushFacts) -> Result<(), Silent> {
    if message.kind == MessageKind::System || message.is_deleted {
        return Err(Silent::NoMessage);
    }
    if message.created_at < facts.since {
        return Err(Silent::TooOld);
    }
    if message.sender == member.user {
        return Err(Silent::Own);
    }
    if member.joined_seq > message.seq {
        return Err(Silent::Later);
    }
    if member.read_seq >= message.seq {
        return Err(Silent::Read);
    }
    if member.muted_until.is_some_and(|until| until > facts.now) {
        return Err(Silent::Muted);
    }
    if facts.is_blocked {
        return Err(Silent::Blocked);
    }
    let is_large = facts.member_count as usize > limits::PUSH_MEMBERS_MAX;
    if is_large && !names(message, member.user) {
        return Err(Silent::Crowd);
    }
    Ok(())
}

/// The same of one of whom it is known whether they have a connection, on any node. Away is connected: their device
/// hears of it.
///
/// # Errors
/// [`Silent`]: why not.
pub fn decide(
    message: &PushMessage,
    member: &PushMember,
    facts: &PushFacts,
    is_connected: bool,
) -> Result<(), Silent> {
    wants(message, member, facts)?;
    match is_connected {
        true => Err(Silent::Connected),
        false => Ok(()),
    }
}

/// What is shown of a text: its beginning.
pub fn preview(text: &str) -> String {
    let mut chars = text.chars();
    let mut shown: String = chars.by_ref().take(limits::PUSH_PREVIEW_CHARS).collect();
    if chars.next().is_some() {
        shown.pop();
        shown.push('…');
    }
    shown
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::view::All;
    use uuid::Uuid;

    const ADA: UserId = UserId(Uuid::from_u128(1));
    const BOB: UserId = UserId(Uuid::from_u128(2));

    fn message() -> PushMessage {
        PushMessage {
            seq: 10,
            sender: ADA,
            sender_name: "Ada".to_owned(),
            kind: MessageKind::Text,
            text: Some("Coffee?".to_owned()),
            mentions: Vec::new(),
            is_deleted: false,
            created_at: UnixMs(1_000),
        }
    }

    fn member() -> PushMember {
        PushMember {
            user: BOB,
            joined_seq: 1,
            read_seq: 9,
            muted_until: None,
        }
    }

    fn facts() -> PushFacts {
        PushFacts {
            now: UnixMs(3_000),
            since: UnixMs(500),
            member_count: 2,
            is_blocked: false,
        }
    }

    #[test]
    fn who_has_no_connection_is_told_of_what_they_have_not_read() {
        type Change = fn(&mut PushMessage, &mut PushMember, &mut PushFacts);
        let large = limits::PUSH_MEMBERS_MAX as u32 + 1;
        let cases: &[(&str, Change, Result<(), Silent>)] = &[
            ("plain", |_, _, _| (), Ok(())),
            (
                "named",
                |m, _, _| m.mentions = vec![Mention::User(BOB)],
                Ok(()),
            ),
            ("own", |m, _, _| m.sender = BOB, Err(Silent::Own)),
            (
                "system",
                |m, _, _| m.kind = MessageKind::System,
                Err(Silent::NoMessage),
            ),
            (
                "deleted",
                |m, _, _| m.is_deleted = true,
                Err(Silent::NoMessage),
            ),
            (
                "too old",
                |_, _, f| f.since = UnixMs(1_001),
                Err(Silent::TooOld),
            ),
            ("just in time", |_, _, f| f.since = UnixMs(1_000), Ok(())),
            (
                "joined later",
                |_, b, _| b.joined_seq = 11,
                Err(Silent::Later),
            ),
            ("joined then", |_, b, _| b.joined_seq = 10, Ok(())),
            ("read", |_, b, _| b.read_seq = 10, Err(Silent::Read)),
            ("read further", |_, b, _| b.read_seq = 11, Err(Silent::Read)),
            (
                "muted",
                |_, b, _| b.muted_until = Some(UnixMs(3_001)),
                Err(Silent::Muted),
            ),
            (
                "muted no longer",
                |_, b, _| b.muted_until = Some(UnixMs(3_000)),
                Ok(()),
            ),
            (
                "muted for good",
                |_, b, _| b.muted_until = Some(UnixMs::FOR_GOOD),
                Err(Silent::Muted),
            ),
            (
                "muted and named",
                |m, b, _| {
                    m.mentions = vec![Mention::User(BOB)];
                    b.muted_until = Some(UnixMs(3_001));
                },
                Err(Silent::Muted),
            ),
            (
                "blocked",
                |_, _, f| f.is_blocked = true,
                Err(Silent::Blocked),
            ),
            (
                "blocked and named",
                |m, _, f| {
                    m.mentions = vec![Mention::User(BOB)];
                    f.is_blocked = true;
                },
                Err(Silent::Blocked),
            ),
        ];
        for (name, change, expected) in cases {
            let (mut message, mut member, mut facts) = (message(), member(), facts());
            change(&mut message, &mut member, &mut facts);
            assert_eq!(wants(&message, &member, &facts), *expected, "{name}");
            assert_eq!(
                decide(&message, &member, &facts, false),
                *expected,
                "{name}"
            );
            let connected = expected.and(Err(Silent::Connected));
            assert_eq!(decide(&message, &member, &facts, true), connected, "{name}");
        }
        let mut facts = facts();
        facts.member_count = large - 1;
        assert_eq!(wants(&message(), &member(), &facts), Ok(()));
        facts.member_count = large;
        assert_eq!(wants(&message(), &member(), &facts), Err(Silent::Crowd));
        let mut named = message();
        named.mentions = vec![Mention::All(All::All)];
        assert_eq!(wants(&named, &member(), &facts), Err(Silent::Crowd));
        named.mentions = vec![Mention::User(BOB)];
        assert_eq!(wants(&named, &member(), &facts), Ok(()));
    }

    #[test]
    fn a_preview_is_the_beginning() {
        assert_eq!(preview("Grüezi"), "Grüezi");
        let exact = "ü".repeat(limits::PUSH_PREVIEW_CHARS);
        assert_eq!(preview(&exact), exact);
        let cut = preview(&format!("{exact}x"));
        assert_eq!(cut.chars().count(), limits::PUSH_PREVIEW_CHARS);
        assert!(cut.ends_with("ü…"));
    }
}
