//! What every backend decides the same way: hashes of bodies, how pages are cut, cursors, and how the
//! first event of a room is kept.

use super::files::files_bytes;
use crate::chat::port::files::SentFiles;
use crate::chat::port::{HistoryRead, OpDone, OpReply, Refusal};
use crate::protocol::event::{RoomEvent, RoomEventBody};
use crate::protocol::reply::Sent;
use crate::protocol::view::{
    Attachment, Member, Mention, Message, MessageKind, Role, Room, RoomKind, SystemEvent,
};
use crate::protocol::{ClientMsgId, ErrorCode, RoomId, Seq, UnixMs, UserId};
use serde::{Deserialize, Serialize};
use std::cmp::Reverse;
use uuid::Uuid;

/// A refusal.
pub(super) fn refuse<T>(code: ErrorCode, message: &'static str) -> Result<T, Refusal> {
    Err(Refusal { code, message })
}

/// A number as databases keep it. Ours stay far below 2^63; a client's `seq` may be anything, and is
/// then simply after every event.
pub(super) fn int(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

/// First 16 bytes of a keyed BLAKE3: what is compared to tell a retry from another body.
pub(super) type BodyHash = [u8; 16];

/// The hash of a send.
pub(super) fn send_hash(
    key: &[u8; 32],
    text: &str,
    reply_to_seq: Option<Seq>,
    mentions: &[Mention],
    files: Option<&SentFiles>,
) -> BodyHash {
    body_hash(key, |hash| {
        hash.text(kind_of(files).name());
        hash.text(text);
        hash.number(reply_to_seq.unwrap_or(0));
        for mention in mentions {
            match mention {
                Mention::All(_) => hash.text("all"),
                Mention::User(user) => hash.user(*user),
            }
        }
        for file in files.iter().flat_map(|files| &files.files) {
            hash.text("file");
            hash.user(UserId(file.upload.0));
            hash.number(u64::from(file.width.unwrap_or(0)));
            hash.number(u64::from(file.height.unwrap_or(0)));
            hash.number(file.duration_ms.map_or(0, |ms| ms + 1));
            hash.text(file.placeholder.as_deref().unwrap_or_default());
        }
    })
}

/// The kind of a message with these files.
pub(super) fn kind_of(files: Option<&SentFiles>) -> MessageKind {
    files.map_or(MessageKind::Text, |files| files.kind.into())
}

/// The hash of what a room is opened with.
pub(super) fn room_hash(
    key: &[u8; 32],
    kind: RoomKind,
    title: Option<&str>,
    others: &[UserId],
) -> BodyHash {
    body_hash(key, |hash| {
        hash.text(kind.name());
        hash.number(u64::from(title.is_some()));
        hash.text(title.unwrap_or_default());
        others.iter().for_each(|user| hash.user(*user));
    })
}

pub(super) fn body_hash(key: &[u8; 32], parts: impl FnOnce(&mut Parts)) -> BodyHash {
    let mut hash = Parts(blake3::Hasher::new_keyed(key));
    parts(&mut hash);
    let mut first = [0; 16];
    first.copy_from_slice(&hash.0.finalize().as_bytes()[..16]);
    first
}

/// Parts of a body, each told from the next by its length.
pub(super) struct Parts(blake3::Hasher);

impl Parts {
    pub fn text(&mut self, text: &str) {
        self.number(text.len() as u64);
        self.0.update(text.as_bytes());
    }

    fn number(&mut self, number: u64) {
        self.0.update(&number.to_le_bytes());
    }

    pub fn user(&mut self, user: UserId) {
        self.0.update(user.0.as_bytes());
    }
}

/// What a person writes.
pub(super) struct Written<'a> {
    /// The text; with files, if it is empty: none.
    pub text: &'a str,
    /// The message it answers.
    pub reply_to_seq: Option<Seq>,
    /// Who is named in it.
    pub mentions: &'a [Mention],
    /// The kind and what its files are by now.
    pub kind: MessageKind,
    /// Its files.
    pub attachments: Vec<Attachment>,
}

/// The text as it is kept: with files there may be none.
pub(super) fn kept_text(kind: MessageKind, text: &str) -> Option<&str> {
    (kind == MessageKind::Text || !text.is_empty()).then_some(text)
}

/// A new message of a person.
pub(super) fn new_message(
    sender_id: UserId,
    client_msg_id: ClientMsgId,
    written: Written<'_>,
    seq: Seq,
    ts: UnixMs,
) -> Message {
    let Written {
        text,
        reply_to_seq,
        mentions,
        kind,
        attachments,
    } = written;
    Message {
        seq,
        sender_id,
        client_msg_id: Some(client_msg_id),
        kind,
        text: kept_text(kind, text).map(str::to_owned),
        event: None,
        attachments,
        reply_to_seq,
        mentions: mentions.to_vec(),
        reactions: std::collections::BTreeMap::new(),
        changed_seq: seq,
        revision: 1,
        edited_at: None,
        deleted_at: None,
        created_at: ts,
    }
}

/// A send that stands.
pub(super) fn sent(room_id: RoomId, client_msg_id: ClientMsgId, message: Message) -> OpDone {
    let (seq, ts) = (message.seq, message.created_at);
    OpDone {
        reply: OpReply::Sent(Sent {
            client_msg_id,
            room_id,
            seq,
            ts,
            duplicate: false,
        }),
        events: vec![RoomEvent {
            room_id,
            seq,
            ts,
            body: RoomEventBody::MessageCreated {
                message_seq: seq,
                message: Box::new(message),
            },
        }],
    }
}

/// Whether these may be the first members of such a room, beside its creator. Checked before it comes
/// to the store; checked again, because a wrong room id would undo the uniqueness of a pair.
pub(super) fn is_well_formed(
    room: RoomId,
    actor: UserId,
    kind: RoomKind,
    others: &[UserId],
) -> bool {
    !others.contains(&actor)
        && match kind {
            RoomKind::Direct => others.len() == 1 && room == RoomId::direct(actor, others[0]),
            RoomKind::Group => true,
        }
}

/// Where a room stands in a list by activity: newest first, then by id.
pub(super) type Place = (Reverse<UnixMs>, RoomId);

/// The place of a page's last room. Rooms that became active meanwhile stand before it; they are
/// told by their events.
pub(super) fn cursor((ts, room): &Place) -> String {
    format!("{:x}-{}", ts.0.0, room.0.simple())
}

/// The inverse of [`cursor`]; `None` for what it did not make.
pub(super) fn parse_cursor(cursor: &str) -> Option<Place> {
    let (ts, room) = cursor.split_once('-')?;
    let ts = u64::from_str_radix(ts, 16).ok()?;
    let room = Uuid::try_parse(room).ok()?;
    Some((Reverse(UnixMs(ts)), RoomId(room)))
}

/// Where a page of members ends: by how long they serve, then by id.
pub(super) fn member_cursor(joined_seq: Seq, user: UserId) -> String {
    format!("{joined_seq:x}-{}", user.0.simple())
}

/// The inverse of [`member_cursor`]; `None` for what it did not make.
pub(super) fn parse_member_cursor(cursor: &str) -> Option<(Seq, UserId)> {
    let (joined_seq, user) = cursor.split_once('-')?;
    let joined_seq = Seq::from_str_radix(joined_seq, 16).ok()?;
    Some((joined_seq, UserId(Uuid::try_parse(user).ok()?)))
}

/// A page from the middle outwards, one older and one newer in turn, so that it stays without a gap
/// and its middle in the middle when the limit, the bytes or one side end early. Each side nearest
/// first, with whether it was cut by its own bytes. Returns the page, by `seq`, and whether something
/// was left out.
pub(super) fn middle_out(
    read: &HistoryRead,
    (older, older_cut): (Vec<Message>, bool),
    (newer, newer_cut): (Vec<Message>, bool),
) -> (Vec<Message>, bool) {
    let (mut older, mut newer) = (older.into_iter().peekable(), newer.into_iter().peekable());
    let (mut below, mut above) = (Vec::new(), Vec::new());
    let mut taken = Taken::none();
    loop {
        // A side that was cut, by its own bytes, is not at its end: the page is.
        let older_ended = older.peek().is_none() && !older_cut;
        let newer_ended = newer.peek().is_none() && !newer_cut;
        let (side, kept) = if newer_ended || below.len() <= above.len() && !older_ended {
            (&mut older, &mut below)
        } else {
            (&mut newer, &mut above)
        };
        match side.next_if(|message| taken.takes(message, read)) {
            Some(message) => kept.push(message),
            None => break,
        }
    }
    let has_more = older_cut || newer_cut || older.len() + newer.len() > 0;
    below.reverse();
    below.append(&mut above);
    (below, has_more)
}

/// What a page has taken so far.
pub(super) struct Taken {
    messages: usize,
    bytes: usize,
}

impl Taken {
    pub fn none() -> Taken {
        Taken {
            messages: 0,
            bytes: 0,
        }
    }

    /// Takes the message into account, if it fits; the first one always fits.
    pub fn takes(&mut self, message: &Message, read: &HistoryRead) -> bool {
        let bytes = self.bytes + weight(message);
        let fits = self.messages < read.limit && (bytes <= read.bytes_max || self.messages == 0);
        if fits {
            self.messages += 1;
            self.bytes = bytes;
        }
        fits
    }
}

/// Bytes a message takes in a page, but for what each has alike.
fn weight(message: &Message) -> usize {
    let text = message.text.as_ref().map_or(0, String::len);
    text + message.mentions.len() * MENTION_BYTES
        + message.reactions.len() * REACTION_BYTES
        + files_bytes(&message.attachments)
}

/// `"…",` with a user's id.
const MENTION_BYTES: usize = 39;
/// `"…":{"count":10000,"mine":false},` with an emoji of seven characters, as the longest are.
const REACTION_BYTES: usize = 64;

/// The durable event that created a message, whose `event` is kept as this JSON.
pub(super) fn event_of(
    room_id: RoomId,
    mut message: Message,
    json: &str,
) -> Result<RoomEvent, String> {
    let (seq, ts) = (message.seq, message.created_at);
    let body = match message.event.take() {
        None => RoomEventBody::MessageCreated {
            message_seq: seq,
            message: Box::new(message),
        },
        Some(event) => system_body(room_id, ts, event, json)?,
    };
    Ok(RoomEvent {
        room_id,
        seq,
        ts,
        body,
    })
}

/// What a system message stands for, as it was told.
pub(super) fn system_body(
    room_id: RoomId,
    ts: UnixMs,
    event: SystemEvent,
    json: &str,
) -> Result<RoomEventBody, String> {
    Ok(match event {
        SystemEvent::RoomCreated { .. } => {
            let opened: Opened = from_json(json)?;
            RoomEventBody::RoomCreated {
                room: Box::new(opened.room.into_room(room_id, ts)),
            }
        }
        SystemEvent::MemberJoined(joined) => RoomEventBody::MemberJoined(joined),
        SystemEvent::MemberLeft(left) => RoomEventBody::MemberLeft(left),
        SystemEvent::MemberRoleChanged(changed) => RoomEventBody::MemberRoleChanged(changed),
        SystemEvent::RoomUpdated(updated) => RoomEventBody::RoomUpdated(updated),
        SystemEvent::UserErased(erased) => RoomEventBody::UserErased(erased),
    })
}

/// `event` of the row of `room.created`: what every system message has, and beside it the room as
/// it was opened, so that the event can be told again after the room has changed.
#[derive(Serialize, Deserialize)]
pub(super) struct Opened {
    r#type: String,
    actor_id: UserId,
    pub room: OpenedAs,
}

/// A room as it was opened.
#[derive(Serialize, Deserialize)]
pub(super) struct OpenedAs {
    kind: RoomKind,
    title: Option<String>,
    member_count: u32,
    members: Vec<OpenedMember>,
}

#[derive(Serialize, Deserialize)]
struct OpenedMember {
    user_id: UserId,
    name: String,
    role: Role,
}

impl Opened {
    /// What is kept of a room that was opened just now.
    pub fn new(actor_id: UserId, room: &Room) -> Opened {
        let member = |member: &Member| OpenedMember {
            user_id: member.user_id,
            name: member.name.clone(),
            role: member.role,
        };
        Opened {
            r#type: "room.created".to_owned(),
            actor_id,
            room: OpenedAs {
                kind: room.kind,
                title: room.title.clone(),
                member_count: room.member_count,
                members: room.members.iter().map(member).collect(),
            },
        }
    }
}

/// `seq` of `room.created`, which the first members have read.
pub(super) const OPENED_SEQ: Seq = 1;

impl OpenedAs {
    /// The room as it was then.
    pub fn into_room(self, room_id: RoomId, created_at: UnixMs) -> Room {
        let member = |member: OpenedMember| Member {
            user_id: member.user_id,
            name: member.name,
            role: member.role,
            read_seq: OPENED_SEQ,
            delivered_seq: OPENED_SEQ,
        };
        Room {
            room_id,
            kind: self.kind,
            title: self.title,
            picture: None,
            created_at,
            last_seq: OPENED_SEQ,
            member_count: self.member_count,
            members: self.members.into_iter().map(member).collect(),
            pins: Some(Vec::new()),
        }
    }
}

/// JSON of one of our own types.
pub(super) fn to_json<T: Serialize>(value: &T) -> Result<String, String> {
    sonic_rs::to_string(value).map_err(|error| error.to_string())
}

/// The inverse of [`to_json`].
pub(super) fn from_json<T: for<'de> Deserialize<'de>>(json: &str) -> Result<T, String> {
    sonic_rs::from_str(json).map_err(|error| error.to_string())
}
