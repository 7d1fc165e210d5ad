//! What the nodes of one deployment tell each other, as bytes.
//!
//! A relayed message is a hint: whoever cannot read it, or never gets it, finds the same in the
//! store. So a node of another version is told apart by the first byte alone, and a kind that is not
//! known is passed over.
//!
//! Layout, integers little-endian: version (1), kind (1), origin (8), epoch (8), room (16), then by
//! kind. `Event`: seq (8), membership (1: 0 none, 1 joined, 2 left, 3 erased), user (16, of a membership), the
//! event's JSON. `Head`: seq (8). `Added`, `Typing`: users (16 each). `Receipts`, for each: user (16), read and
//! delivered seq (8 each), whether what the room is to the user changed (1). Presence is of no room (zeros). `Presence`: how
//! long it holds, s (2), then for each: user (16), state (1: 0 offline, 1 away, 2 online), last seen, ms (8:
//! 0 unknown). `PresenceAsked`, `ConnectedAsked`,
//! `Connected`: users (16 each). `Block`, of no room: who (16), whom (16), 1 if blocked (1), 1 if
//! severed (1), version (8). `Ended`, of no room: who (16), version (8), close code (2), which (1: 0 began before
//! the version, 1 of a session, 2 issued until), then for 1 its name's hash (16), for 2 the time, ms (8).

use super::block::BlockChange;
use super::ending::{EndsWhich, SessionsEnd};
use super::error::CloseCode;
use super::event::{EncodedEvent, Membership};
use super::ids::{Epoch, RoomId, Seq, UserId};
use super::presence::{PresenceState, UserPresence};
use super::time::UnixMs;
use super::websocket;
use uuid::Uuid;

/// First byte of every message.
pub const VERSION: u8 = 1;

/// What one node tells the others.
#[derive(Clone, PartialEq, Debug)]
pub enum RelayMessage {
    /// The room's event, committed.
    Event(RoomId, EncodedEvent),
    /// The room has this event; it is too large to be relayed.
    Head(RoomId, Seq),
    /// These users became members of the room.
    Added(RoomId, Vec<UserId>),
    /// These users of the node are typing in the room, and no others of it.
    Typing(RoomId, Vec<UserId>),
    /// Receipts of members of the room, written: at most [`crate::limits::RECEIPTS_PER_MESSAGE`].
    Receipts(RoomId, Vec<RelayedReceipt>),
    /// How these users are seen by their connections to the sender.
    Presence {
        /// How long it holds unless it is said again, s.
        ttl_s: u16,
        /// The users, at most [`crate::limits::PRESENCE_USERS_PER_MESSAGE`].
        users: Vec<UserPresence>,
    },
    /// The sender wants to know how these users are seen, and for a while how that changes.
    PresenceAsked(Vec<UserId>),
    /// The sender wants to know which of these users have a connection.
    ConnectedAsked(Vec<UserId>),
    /// These users have a connection to the sender.
    Connected(Vec<UserId>),
    /// A user blocked another, or no longer does.
    Block(BlockChange),
    /// Sessions of a user end.
    Ended(SessionsEnd),
}

/// How far a member is in a room.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct RelayedReceipt {
    /// The member.
    pub user: UserId,
    /// Read up to here; 0: not told.
    pub read_seq: Seq,
    /// Received up to here; 0: not told.
    pub delivered_seq: Seq,
    /// What the room is to the member alone may have changed: their other devices want to know.
    pub is_own_changed: bool,
}

/// A message with where it comes from.
#[derive(Clone, PartialEq, Debug)]
pub struct Relayed {
    /// The run of a node that sent it.
    pub origin: u64,
    /// The history that it belongs to.
    pub epoch: Epoch,
    /// The message.
    pub message: RelayMessage,
}

const EVENT: u8 = 1;
const HEAD: u8 = 2;
const ADDED: u8 = 3;
const TYPING: u8 = 4;
const PRESENCE: u8 = 5;
const PRESENCE_ASKED: u8 = 6;
const RECEIPTS: u8 = 7;
const BLOCK: u8 = 8;
const ENDED: u8 = 9;
const CONNECTED_ASKED: u8 = 10;
const CONNECTED: u8 = 11;

/// Where a message is of no room.
const NO_ROOM: RoomId = RoomId(Uuid::nil());

/// Encodes a message.
pub fn encode(origin: u64, epoch: Epoch, message: &RelayMessage) -> Box<[u8]> {
    let (kind, room) = match message {
        RelayMessage::Event(room, _) => (EVENT, room),
        RelayMessage::Head(room, _) => (HEAD, room),
        RelayMessage::Added(room, _) => (ADDED, room),
        RelayMessage::Typing(room, _) => (TYPING, room),
        RelayMessage::Receipts(room, _) => (RECEIPTS, room),
        RelayMessage::Presence { .. } => (PRESENCE, &NO_ROOM),
        RelayMessage::PresenceAsked(_) => (PRESENCE_ASKED, &NO_ROOM),
        RelayMessage::ConnectedAsked(_) => (CONNECTED_ASKED, &NO_ROOM),
        RelayMessage::Connected(_) => (CONNECTED, &NO_ROOM),
        RelayMessage::Block(_) => (BLOCK, &NO_ROOM),
        RelayMessage::Ended(_) => (ENDED, &NO_ROOM),
    };
    let mut bytes = Vec::with_capacity(64);
    bytes.extend_from_slice(&[VERSION, kind]);
    bytes.extend_from_slice(&origin.to_le_bytes());
    bytes.extend_from_slice(&epoch.0.to_le_bytes());
    bytes.extend_from_slice(room.0.as_bytes());
    match message {
        RelayMessage::Event(_, event) => {
            bytes.extend_from_slice(&event.seq.to_le_bytes());
            match event.membership {
                None => bytes.push(0),
                Some(Membership::Joined(user)) => {
                    bytes.push(1);
                    bytes.extend_from_slice(user.0.as_bytes());
                }
                Some(Membership::Left(user)) => {
                    bytes.push(2);
                    bytes.extend_from_slice(user.0.as_bytes());
                }
                Some(Membership::Erased(user)) => {
                    bytes.push(3);
                    bytes.extend_from_slice(user.0.as_bytes());
                }
            }
            bytes.extend_from_slice(websocket::payload(&event.frame));
        }
        RelayMessage::Head(_, seq) => bytes.extend_from_slice(&seq.to_le_bytes()),
        RelayMessage::Receipts(_, receipts) => {
            for receipt in receipts {
                bytes.extend_from_slice(receipt.user.0.as_bytes());
                bytes.extend_from_slice(&receipt.read_seq.to_le_bytes());
                bytes.extend_from_slice(&receipt.delivered_seq.to_le_bytes());
                bytes.push(u8::from(receipt.is_own_changed));
            }
        }
        RelayMessage::Presence { ttl_s, users } => {
            bytes.extend_from_slice(&ttl_s.to_le_bytes());
            for presence in users {
                bytes.extend_from_slice(presence.user_id.0.as_bytes());
                bytes.push(presence.state as u8);
                let seen_ms = presence.last_seen_at.map_or(0, |at| at.0);
                bytes.extend_from_slice(&seen_ms.to_le_bytes());
            }
        }
        RelayMessage::Block(change) => {
            bytes.extend_from_slice(change.by.0.as_bytes());
            bytes.extend_from_slice(change.user.0.as_bytes());
            bytes.extend_from_slice(&[u8::from(change.blocked), u8::from(change.severed)]);
            bytes.extend_from_slice(&change.version.to_le_bytes());
        }
        RelayMessage::Ended(end) => {
            bytes.extend_from_slice(end.user.0.as_bytes());
            bytes.extend_from_slice(&end.version.to_le_bytes());
            bytes.extend_from_slice(&(end.code as u16).to_le_bytes());
            match end.which {
                EndsWhich::BeganBefore => bytes.push(0),
                EndsWhich::OfSession(sid) => {
                    bytes.push(1);
                    bytes.extend_from_slice(sid.as_bytes());
                }
                EndsWhich::IssuedUntil(until) => {
                    bytes.push(2);
                    bytes.extend_from_slice(&until.0.to_le_bytes());
                }
            }
        }
        RelayMessage::Added(_, users)
        | RelayMessage::Typing(_, users)
        | RelayMessage::PresenceAsked(users)
        | RelayMessage::ConnectedAsked(users)
        | RelayMessage::Connected(users) => {
            for user in users {
                bytes.extend_from_slice(user.0.as_bytes());
            }
        }
    }
    bytes.into_boxed_slice()
}

/// Reads a message; `None` if it is of another version, of an unknown kind, or no message at all.
pub fn decode(bytes: &[u8]) -> Option<Relayed> {
    let mut rest = bytes;
    let ([VERSION], [kind]) = (take::<1>(&mut rest)?, take::<1>(&mut rest)?) else {
        return None;
    };
    let origin = u64::from_le_bytes(take(&mut rest)?);
    let epoch = Epoch(u64::from_le_bytes(take(&mut rest)?));
    let room = RoomId(Uuid::from_bytes(take(&mut rest)?));
    let message = match kind {
        EVENT => {
            let seq = Seq::from_le_bytes(take(&mut rest)?);
            let membership = match take::<1>(&mut rest)? {
                [0] => None,
                [1] => Some(Membership::Joined(user(&mut rest)?)),
                [2] => Some(Membership::Left(user(&mut rest)?)),
                [3] => Some(Membership::Erased(user(&mut rest)?)),
                _ => return None,
            };
            let json = std::str::from_utf8(rest).ok()?;
            let frame = websocket::encode_text(json);
            RelayMessage::Event(
                room,
                EncodedEvent {
                    seq,
                    membership,
                    frame,
                },
            )
        }
        HEAD => RelayMessage::Head(room, Seq::from_le_bytes(take(&mut rest)?)),
        ADDED | TYPING => {
            let mut users = Vec::with_capacity(rest.len() / 16);
            while !rest.is_empty() {
                users.push(user(&mut rest)?);
            }
            match kind {
                ADDED => RelayMessage::Added(room, users),
                _ => RelayMessage::Typing(room, users),
            }
        }
        RECEIPTS => {
            let mut receipts = Vec::with_capacity(rest.len() / 33);
            while !rest.is_empty() {
                receipts.push(RelayedReceipt {
                    user: user(&mut rest)?,
                    read_seq: Seq::from_le_bytes(take(&mut rest)?),
                    delivered_seq: Seq::from_le_bytes(take(&mut rest)?),
                    is_own_changed: match take::<1>(&mut rest)? {
                        [0] => false,
                        [1] => true,
                        _ => return None,
                    },
                });
            }
            RelayMessage::Receipts(room, receipts)
        }
        PRESENCE => {
            let ttl_s = u16::from_le_bytes(take(&mut rest)?);
            let mut users = Vec::with_capacity(rest.len() / 25);
            while !rest.is_empty() {
                users.push(presence(&mut rest)?);
            }
            RelayMessage::Presence { ttl_s, users }
        }
        PRESENCE_ASKED | CONNECTED_ASKED | CONNECTED => {
            let mut users = Vec::with_capacity(rest.len() / 16);
            while !rest.is_empty() {
                users.push(user(&mut rest)?);
            }
            match kind {
                PRESENCE_ASKED => RelayMessage::PresenceAsked(users),
                CONNECTED_ASKED => RelayMessage::ConnectedAsked(users),
                _ => RelayMessage::Connected(users),
            }
        }
        BLOCK => RelayMessage::Block(BlockChange {
            by: user(&mut rest)?,
            user: user(&mut rest)?,
            blocked: take::<1>(&mut rest)? == [1],
            severed: take::<1>(&mut rest)? == [1],
            version: u64::from_le_bytes(take(&mut rest)?),
        }),
        ENDED => RelayMessage::Ended(SessionsEnd {
            user: user(&mut rest)?,
            version: u64::from_le_bytes(take(&mut rest)?),
            code: CloseCode::from_number(u16::from_le_bytes(take(&mut rest)?))?,
            which: match take::<1>(&mut rest)? {
                [0] => EndsWhich::BeganBefore,
                [1] => EndsWhich::OfSession(Uuid::from_bytes(take(&mut rest)?)),
                [2] => EndsWhich::IssuedUntil(UnixMs(u64::from_le_bytes(take(&mut rest)?))),
                _ => return None,
            },
        }),
        _ => return None,
    };
    Some(Relayed {
        origin,
        epoch,
        message,
    })
}

fn take<const N: usize>(rest: &mut &[u8]) -> Option<[u8; N]> {
    let (taken, after) = rest.split_first_chunk::<N>()?;
    *rest = after;
    Some(*taken)
}

fn user(rest: &mut &[u8]) -> Option<UserId> {
    take(rest).map(|bytes| UserId(Uuid::from_bytes(bytes)))
}

fn presence(rest: &mut &[u8]) -> Option<UserPresence> {
    let user_id = user(rest)?;
    let state = match take::<1>(rest)? {
        [0] => PresenceState::Offline,
        [1] => PresenceState::Away,
        [2] => PresenceState::Online,
        _ => return None,
    };
    let seen_ms = u64::from_le_bytes(take(rest)?);
    Some(UserPresence {
        user_id,
        state,
        last_seen_at: (seen_ms > 0).then_some(UnixMs(seen_ms)),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn room() -> RoomId {
        RoomId(Uuid::from_u128(7))
    }

    fn all() -> Vec<RelayMessage> {
        let user = UserId(Uuid::from_u128(9));
        let event = |membership| EncodedEvent {
            seq: 41,
            membership,
            frame: websocket::encode_text(r#"{"type":"message.created","text":"grüezi"}"#),
        };
        vec![
            RelayMessage::Event(room(), event(None)),
            RelayMessage::Event(room(), event(Some(Membership::Joined(user)))),
            RelayMessage::Event(room(), event(Some(Membership::Left(user)))),
            RelayMessage::Event(room(), event(Some(Membership::Erased(user)))),
            RelayMessage::Head(room(), 41),
            RelayMessage::Added(room(), vec![user, UserId(Uuid::from_u128(10))]),
            RelayMessage::Typing(room(), vec![user]),
            RelayMessage::ConnectedAsked(vec![user]),
            RelayMessage::Connected(vec![user, UserId(Uuid::from_u128(10))]),
            RelayMessage::Receipts(
                room(),
                [(41, 42, false), (0, 7, true)]
                    .map(|(read_seq, delivered_seq, is_own_changed)| RelayedReceipt {
                        user,
                        read_seq,
                        delivered_seq,
                        is_own_changed,
                    })
                    .to_vec(),
            ),
            RelayMessage::Presence {
                ttl_s: 60,
                users: [
                    (PresenceState::Online, None),
                    (PresenceState::Away, None),
                    (PresenceState::Offline, Some(UnixMs(1_700_000_000_123))),
                ]
                .map(|(state, last_seen_at)| UserPresence {
                    user_id: user,
                    state,
                    last_seen_at,
                })
                .to_vec(),
            },
            RelayMessage::PresenceAsked(vec![user]),
            RelayMessage::Block(BlockChange {
                by: user,
                user: UserId(Uuid::from_u128(10)),
                blocked: false,
                severed: true,
                version: 3,
            }),
            RelayMessage::Ended(SessionsEnd {
                user,
                version: 1 << 40,
                code: CloseCode::UserDeleted,
                which: EndsWhich::BeganBefore,
            }),
            RelayMessage::Ended(SessionsEnd {
                user,
                version: SessionsEnd::FOR_GOOD,
                code: CloseCode::Unauthenticated,
                which: EndsWhich::OfSession(Uuid::from_u128(11)),
            }),
            RelayMessage::Ended(SessionsEnd {
                user,
                version: 4,
                code: CloseCode::Unauthenticated,
                which: EndsWhich::IssuedUntil(UnixMs(1_700_000_000_123)),
            }),
        ]
    }

    #[test]
    fn a_message_comes_back_as_it_was() {
        for message in all() {
            let bytes = encode(3, Epoch(5), &message);
            let relayed = decode(&bytes).expect("a message");
            assert_eq!((relayed.origin, relayed.epoch), (3, Epoch(5)));
            assert_eq!(relayed.message, message);
        }
    }

    /// The bytes of version 1, for good: nodes of the next version must still read them.
    #[test]
    fn version_one_is_laid_out_as_it_always_was() {
        let bytes = encode(3, Epoch(5), &RelayMessage::Head(room(), 41));
        let mut expected = vec![1, 2];
        expected.extend_from_slice(&3u64.to_le_bytes());
        expected.extend_from_slice(&5u64.to_le_bytes());
        expected.extend_from_slice(room().0.as_bytes());
        expected.extend_from_slice(&41u64.to_le_bytes());
        assert_eq!(&*bytes, &*expected);
    }

    #[test]
    fn what_another_version_says_is_passed_over() {
        for message in all() {
            let mut bytes = encode(3, Epoch(5), &message);
            bytes[0] = VERSION + 1;
            assert_eq!(decode(&bytes), None);
            bytes[0] = VERSION;
            bytes[1] = 200;
            assert_eq!(decode(&bytes), None);
        }
    }

    #[test]
    fn a_message_that_was_cut_is_none() {
        for message in all() {
            let bytes = encode(3, Epoch(5), &message);
            for length in 0..34.min(bytes.len()) {
                assert_eq!(decode(&bytes[..length]), None, "{length} bytes");
            }
        }
        assert_eq!(decode(&[]), None);
        assert_eq!(decode(&[1, 1, 255]), None);
    }
}
