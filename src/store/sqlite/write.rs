//! One transaction of writes: each is decided on what those before it left, and then made or
//! refused. Nothing of a write is made before it is certain that it stands.
//!
//! Invariants: `seq` grows by one per event of a room; `ts` never decreases within a room; a
//! refused write leaves nothing behind.
//!
//! A send writes its message, the entry that makes it unique, and its author's watermark; that one
//! is kept here until [`Batch::finish`], so that a hundred sends of an author write it once. The
//! room's row is not written: its newest event is its newest message.

use super::blocks;
use super::marks::{Marks, MarksWriter};
use super::read::newest;
use super::retain;
use super::row::{Failure, int, refuse, role, room_kind, uint};
use crate::chat::access::{self, Action};
use crate::chat::port::files::SentFiles;
use crate::chat::port::{Op, OpDone, OpKind, OpOutcome, OpReply, Refusal};
use crate::chat::sabotage::{Sabotage, Sabotaged};
use crate::protocol::event::{RoomEvent, RoomEventBody};
use crate::protocol::reply::Sent;
use crate::protocol::view::{Mention, Role, RoomKind};
use crate::protocol::{ClientMsgId, ErrorCode, RoomId, Seq, UnixMs, UserId};
use crate::store::changes;
use crate::store::common::{
    BodyHash, Written, kept_text, kind_of, new_message, send_hash, sent, to_json,
};
use crate::store::erase::erased_as;
use crate::store::files::to_keep;
use rusqlite::{Connection, params};
use serde::Serialize;
use std::collections::{BTreeMap, BTreeSet};

/// Writes of one transaction.
pub(super) struct Batch<'a> {
    pub(super) connection: &'a Connection,
    pub(super) now: UnixMs,
    pub(super) hash_key: &'a [u8; 32],
    sabotage: Sabotaged,
    /// Rooms whose first `seq` since the start was given: only kept by sabotage.
    reused: &'a mut BTreeSet<RoomId>,
    /// Rooms met so far. Ordered, so that the same writes always touch the file in the same order.
    heads: BTreeMap<RoomId, Head>,
    seats: BTreeMap<(RoomId, UserId), Seat>,
    pub(super) marks: &'a mut MarksWriter,
    /// For showing a room that is found, on what this transaction made.
    pub(super) seen: Marks,
}

/// What a write needs to know of a room, and may change.
#[derive(Clone, Copy)]
pub(super) struct Head {
    pub kind: RoomKind,
    pub last_seq: Seq,
    pub last_ts: UnixMs,
    /// A direct room of two of whom one blocks the other.
    pub severed: bool,
    pub member_count: usize,
    /// `member_count` is not yet written to the room's row.
    pub members_changed: bool,
    /// The next `seq` is the last one again: only by sabotage.
    pub reuse: bool,
}

/// A user's place in a room.
#[derive(Clone, Copy, Default)]
pub(super) struct Seat {
    /// As a member now.
    pub role: Option<Role>,
    /// Is or was a member.
    pub known: bool,
    /// Watermark that a send of this transaction advanced, not yet written.
    pub read_seq: Option<Seq>,
}

/// The body of a send.
#[derive(Clone, Copy)]
pub(super) struct Body<'b> {
    text: &'b str,
    reply_to_seq: Option<Seq>,
    mentions: &'b [Mention],
    files: Option<&'b SentFiles>,
}

/// Mentions as a row keeps them: none are NULL.
fn kept_mentions(mentions: &[Mention]) -> Result<Option<String>, Failure> {
    match mentions {
        [] => Ok(None),
        _ => to_json(&mentions).map(Some).map_err(Failure::Data),
    }
}

impl<'a> Batch<'a> {
    /// For the transaction that is open on this connection.
    pub fn new(
        connection: &'a Connection,
        now: UnixMs,
        hash_key: &'a [u8; 32],
        sabotage: Sabotaged,
        reused: &'a mut BTreeSet<RoomId>,
        marks: &'a mut MarksWriter,
    ) -> Batch<'a> {
        Batch {
            connection,
            now,
            hash_key,
            sabotage,
            reused,
            heads: BTreeMap::new(),
            seats: BTreeMap::new(),
            marks,
            seen: Marks::default(),
        }
    }

    /// Decides one write, and makes it if it is not refused.
    pub fn apply(&mut self, op: &Op) -> Result<OpOutcome, Failure> {
        match &op.kind {
            OpKind::CreateRoom {
                kind,
                title,
                members,
            } => self.create_room(op.room, op.actor, *kind, title.as_deref(), members),
            OpKind::Send {
                client_msg_id,
                text,
                reply_to_seq,
                mentions,
                files,
            } => {
                let body = Body {
                    text,
                    reply_to_seq: *reply_to_seq,
                    mentions,
                    files: files.as_deref(),
                };
                self.send(op.room, op.actor, *client_msg_id, body)
            }
            OpKind::ChangeMessage { seq, change } => {
                self.change_message(op.room, op.actor, *seq, change)
            }
            OpKind::AddMembers { users } => self.add_members(op.room, op.actor, users),
            OpKind::RemoveMembers { users } => self.remove_members(op.room, op.actor, users),
            OpKind::SetRole { users, role } => self.set_role(op.room, op.actor, users, *role),
            OpKind::UpdateRoom { title, picture } => {
                let given = [title, picture].map(|it| it.as_ref().map(Option::as_deref));
                self.update_room(op.room, op.actor, given)
            }
            OpKind::Leave => self.leave(op.room, op.actor),
            OpKind::SetBlock { user, blocked } => {
                self.set_block(op.room, op.actor, *user, *blocked)
            }
            OpKind::Erase { requested_at } => self.erase(op.room, op.actor, *requested_at),
        }
    }

    fn send(
        &mut self,
        room: RoomId,
        sender: UserId,
        client_msg_id: ClientMsgId,
        body: Body<'_>,
    ) -> Result<OpOutcome, Failure> {
        let Body {
            text,
            reply_to_seq,
            mentions,
            files,
        } = body;
        assert!(!text.as_bytes().contains(&0), "parsing refuses U+0000");
        let body_hash = send_hash(self.hash_key, text, reply_to_seq, mentions, files);
        let is_open = self.head(room)?.is_some_and(|head| !head.severed);
        let may_send = is_open && self.seat(room, sender)?.role.is_some();
        let (answers_something, is_dropped) = match reply_to_seq {
            Some(seq) if may_send => {
                let is_dropped = seq > 0 && seq <= retain::floor(self.connection, room)?;
                (!is_dropped && self.has_message(room, seq)?, is_dropped)
            }
            Some(_) => (false, false),
            None => (true, false),
        };
        let wrong_mention = match may_send && answers_something {
            true => self.wrong_mention(room, sender, mentions)?,
            false => None,
        };
        let mut wrong = wrong_mention;
        let mut attachments = Vec::new();
        if may_send
            && answers_something
            && wrong.is_none()
            && let Some(files) = files
        {
            match self.usable_files(room, sender, files)? {
                Ok(usable) => attachments = usable,
                Err(refusal) => wrong = Some(refusal),
            }
        }
        if may_send && answers_something && wrong.is_none() {
            // The unique index recognises a retry, which costs a first send nothing. The retry of
            // one that would be refused by now is looked up below.
            let (seq, ts) = self.next(room)?;
            let inserted = self
                .connection
                .prepare_cached(
                    "INSERT OR IGNORE INTO messages (room_id, seq, sender_id, kind, changed_seq,
                         revision, created_at, reply_to_seq, client_msg_id, body_hash, text,
                         mentions, attachments)
                     VALUES (?1, ?2, ?3, 'text', ?2, 1, ?4, ?5, ?6, ?7, ?8, ?9, ?10)",
                )?
                .execute(params![
                    room.0.as_bytes(),
                    int(seq),
                    sender.0.as_bytes(),
                    int(ts.0),
                    reply_to_seq.map(int),
                    client_msg_id.0.as_bytes(),
                    body_hash,
                    kept_text(kind_of(files), text),
                    kept_mentions(mentions)?,
                    to_keep(kind_of(files), &attachments).map_err(Failure::Data)?,
                ])?;
            if inserted == 1 {
                self.give(room, seq, ts);
                self.seat(room, sender)?.read_seq = Some(seq);
                if let Some(files) = files {
                    self.use_files(seq, files)?;
                }
                let written = Written {
                    text,
                    reply_to_seq,
                    mentions,
                    kind: kind_of(files),
                    attachments,
                };
                let message = new_message(sender, client_msg_id, written, seq, ts);
                return Ok(Ok(sent(room, client_msg_id, message)));
            }
        }
        let mut before = self.sent_before(room, sender, client_msg_id)?;
        if before.is_none() && !may_send {
            // Of an erased user the message has another author.
            let stood_as = erased_as(self.hash_key, room, sender);
            before = self.sent_before(room, stood_as, client_msg_id)?;
        }
        match (before, wrong) {
            (Some((seq, ts, first)), _) if first == body_hash => Ok(Ok(OpDone {
                reply: OpReply::Sent(Sent {
                    client_msg_id,
                    room_id: room,
                    seq,
                    ts,
                    duplicate: true,
                }),
                events: Vec::new(),
            })),
            (Some(_), _) => Ok(refuse(
                ErrorCode::IdempotencyConflict,
                "this client_msg_id was used for another message",
            )),
            (None, _) if !may_send => Ok(Err(changes::not_a_member())),
            (None, _) if is_dropped => Ok(Err(changes::gone())),
            (None, _) if !answers_something => Ok(refuse(
                ErrorCode::NotFound,
                "reply_to_seq names no message of this room",
            )),
            (None, Some(refusal)) => Ok(Err(refusal)),
            (None, None) if self.overwrite(room)? => self.send(room, sender, client_msg_id, body),
            (None, None) => Err(Failure::Data("a seq was given twice".to_owned())),
        }
    }

    fn sent_before(
        &self,
        room: RoomId,
        sender: UserId,
        client_msg_id: ClientMsgId,
    ) -> Result<Option<(Seq, UnixMs, BodyHash)>, Failure> {
        let mut statement = self.connection.prepare_cached(
            "SELECT seq, created_at, body_hash FROM messages
             WHERE client_msg_id = ?1 AND sender_id = ?2 AND room_id = ?3",
        )?;
        let mut rows = statement.query(params![
            client_msg_id.0.as_bytes(),
            sender.0.as_bytes(),
            room.0.as_bytes()
        ])?;
        match rows.next()? {
            Some(row) => Ok(Some((uint(row, 0)?, UnixMs(uint(row, 1)?), row.get(2)?))),
            None => Ok(None),
        }
    }

    fn has_message(&self, room: RoomId, seq: Seq) -> Result<bool, Failure> {
        Ok(self
            .connection
            .prepare_cached("SELECT 1 FROM messages WHERE room_id = ?1 AND seq = ?2")?
            .exists(params![room.0.as_bytes(), int(seq)])?)
    }

    /// Inserts a system message and gives it the room's next `seq`.
    pub fn system<E: Serialize>(
        &mut self,
        room: RoomId,
        actor: UserId,
        event: &E,
        body: RoomEventBody,
    ) -> Result<RoomEvent, Failure> {
        self.overwrite(room)?;
        let (seq, ts) = self.next(room)?;
        self.connection
            .prepare_cached(
                "INSERT INTO messages (room_id, seq, sender_id, kind, changed_seq, revision,
                     created_at, event)
                 VALUES (?1, ?2, ?3, 'system', ?2, 1, ?4, ?5)",
            )?
            .execute(params![
                room.0.as_bytes(),
                int(seq),
                actor.0.as_bytes(),
                int(ts.0),
                to_json(event).map_err(Failure::Data)?,
            ])?;
        self.give(room, seq, ts);
        Ok(RoomEvent {
            room_id: room,
            seq,
            ts,
            body,
        })
    }

    /// The room's next `seq` and the time of its event. Taken only by [`Batch::give`].
    pub fn next(&mut self, room: RoomId) -> Result<(Seq, UnixMs), Failure> {
        let now = self.now;
        let Some(head) = self.head(room)? else {
            return Err(Failure::Data("a room is gone".to_owned()));
        };
        let seq = head.last_seq + u64::from(!head.reuse);
        Ok((seq, now.max(head.last_ts)))
    }

    /// Why the sender may not mention these, if so.
    fn wrong_mention(
        &mut self,
        room: RoomId,
        sender: UserId,
        mentions: &[Mention],
    ) -> Result<Option<Refusal>, Failure> {
        for mention in mentions {
            match mention {
                Mention::All(_) => {
                    let kind = self.head(room)?.map(|head| head.kind);
                    let role = self.seat(room, sender)?.role;
                    let may = |(role, kind)| access::may(role, kind, Action::MentionAll);
                    if !role.zip(kind).is_some_and(may) {
                        return Ok(Some(changes::not_all()));
                    }
                }
                Mention::User(user) => {
                    if self.seat(room, *user)?.role.is_none() {
                        return Ok(Some(changes::mentions_a_stranger()));
                    }
                }
            }
        }
        let named = mentions.iter().filter_map(|mention| match mention {
            Mention::User(user) => Some(*user),
            Mention::All(_) => None,
        });
        let named: Vec<UserId> = named.collect();
        match blocks::is_severed(self.connection, sender, &named)? {
            true => Ok(Some(changes::not_a_member())),
            false => Ok(None),
        }
    }

    /// Where it is the fault to be caught that a restart gives the last `seq` once more: removes
    /// what has it now.
    pub fn overwrite(&mut self, room: RoomId) -> Result<bool, Failure> {
        let Some(head) = self.head(room)?.filter(|head| head.reuse) else {
            return Ok(false);
        };
        let seq = head.last_seq;
        head.reuse = false;
        head.last_seq -= 1;
        self.reused.insert(room);
        for sql in [
            "DELETE FROM messages WHERE room_id = ?1 AND seq = ?2",
            "DELETE FROM room_events WHERE room_id = ?1 AND seq = ?2",
        ] {
            self.connection
                .execute(sql, params![room.0.as_bytes(), int(seq)])?;
        }
        Ok(true)
    }

    /// The room has this event now.
    pub fn give(&mut self, room: RoomId, seq: Seq, ts: UnixMs) {
        if let Some(head) = self.heads.get_mut(&room) {
            head.last_seq = seq;
            head.last_ts = ts;
        }
    }

    /// The room as this transaction has it so far.
    pub fn head(&mut self, room: RoomId) -> Result<Option<&mut Head>, Failure> {
        use std::collections::btree_map::Entry;
        match self.heads.entry(room) {
            Entry::Occupied(entry) => Ok(Some(entry.into_mut())),
            Entry::Vacant(entry) => {
                let mut statement = self.connection.prepare_cached(
                    "SELECT kind, member_count, severed FROM chat_rooms WHERE room_id = ?1",
                )?;
                let mut rows = statement.query([room.0.as_bytes()])?;
                let Some(row) = rows.next()? else {
                    return Ok(None);
                };
                let (last_seq, last_ts) = newest(self.connection, room)?;
                let head = Head {
                    kind: room_kind(row, 0)?,
                    last_seq,
                    last_ts,
                    severed: row.get(2)?,
                    member_count: uint(row, 1)? as usize,
                    members_changed: false,
                    reuse: self.sabotage.is(Sabotage::SeqReused) && !self.reused.contains(&room),
                };
                Ok(Some(entry.insert(head)))
            }
        }
    }

    /// The room just opened.
    pub fn open_head(&mut self, room: RoomId, head: Head) {
        if self.sabotage.is(Sabotage::SeqReused) {
            self.reused.insert(room);
        }
        self.heads.insert(room, head);
    }

    /// The user's place in the room as this transaction has it so far.
    pub fn seat(&mut self, room: RoomId, user: UserId) -> Result<&mut Seat, Failure> {
        use std::collections::btree_map::Entry;
        match self.seats.entry((room, user)) {
            Entry::Occupied(entry) => Ok(entry.into_mut()),
            Entry::Vacant(entry) => {
                let mut statement = self.connection.prepare_cached(
                    "SELECT role, left_seq IS NULL FROM room_participants
                     WHERE room_id = ?1 AND user_id = ?2",
                )?;
                let mut rows = statement.query([room.0.as_bytes(), user.0.as_bytes()])?;
                let seat = match rows.next()? {
                    Some(row) => Seat {
                        role: row.get::<_, bool>(1)?.then(|| role(row, 0)).transpose()?,
                        known: true,
                        read_seq: None,
                    },
                    None => Seat::default(),
                };
                Ok(entry.insert(seat))
            }
        }
    }

    /// Writes what was kept back: the authors' watermarks, and how many members rooms have.
    pub fn finish(&mut self) -> Result<(), Failure> {
        for (room, head) in &mut self.heads {
            if std::mem::take(&mut head.members_changed) {
                self.connection
                    .prepare_cached("UPDATE chat_rooms SET member_count = ?2 WHERE room_id = ?1")?
                    .execute(params![room.0.as_bytes(), int(head.member_count as u64)])?;
            }
        }
        let marks = self.seats.iter_mut().filter_map(|((room, user), seat)| {
            let seq = seat.read_seq.take()?;
            Some((*room, *user, seq))
        });
        self.marks.append(self.connection, marks)
    }

    /// What this user is called, and of how many rooms they are a member.
    pub fn user(&self, user: UserId) -> Result<Option<(String, usize)>, Failure> {
        let mut statement = self
            .connection
            .prepare_cached("SELECT name, room_count FROM chat_users WHERE user_id = ?1")?;
        let mut rows = statement.query([user.0.as_bytes()])?;
        match rows.next()? {
            Some(row) => Ok(Some((row.get(0)?, uint(row, 1)? as usize))),
            None => Ok(None),
        }
    }
}
