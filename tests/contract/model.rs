//! The rules once more, as simply as they can be said: lists in memory, no index, no page.

use crate::harness::*;
use caffis_chat::chat::port::upkeep::{DAY_MS, RETAIN_STRETCH};
use caffis_chat::chat::port::*;
use caffis_chat::limits;
use caffis_chat::protocol::block::BlockChange;
use caffis_chat::protocol::event::{
    MessageDeleted, MessagePinned, MessageUnpinned, ReactionUpdated, RoomEvent, RoomEventBody,
};
use caffis_chat::protocol::reply::{History, MessageChanged, Sent};
use caffis_chat::protocol::view::*;
use caffis_chat::protocol::{ClientMsgId, ErrorCode, RoomId, Seq, UnixMs, UserId};
use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};

#[derive(Default)]
pub struct Model {
    pub rooms: BTreeMap<RoomId, ModelRoom>,
    pub names: BTreeMap<UserId, String>,
    /// Who blocks whom.
    pub blocks: BTreeSet<(UserId, UserId)>,
    /// How often each changed their blocks.
    block_versions: BTreeMap<UserId, u64>,
}

pub struct ModelRoom {
    kind: RoomKind,
    title: Option<String>,
    picture: Option<String>,
    first_title: Option<String>,
    first_members: Vec<UserId>,
    created_at: UnixMs,
    pub events: Vec<RoomEvent>,
    members: BTreeMap<UserId, ModelMember>,
    former: Vec<UserId>,
    read: BTreeMap<UserId, Seq>,
    delivered: BTreeMap<UserId, Seq>,
    /// What is told of both instead, while one blocks the other.
    shown: BTreeMap<UserId, (Seq, Seq)>,
    muted_until: BTreeMap<UserId, UnixMs>,
    /// As of which event.
    archived: BTreeMap<UserId, Seq>,
    /// All messages in their current state.
    messages: BTreeMap<Seq, Message>,
    /// What each message of a person was sent as.
    bodies: BTreeMap<Seq, OpKind>,
    /// Who put which emoji on what.
    reactions: BTreeSet<(Seq, UserId, String)>,
    /// By the event that pinned it.
    pins: BTreeMap<Seq, Pin>,
    reports: BTreeSet<(Seq, UserId)>,
    /// Events up to this one are dropped.
    pub floor: Seq,
}

#[derive(Clone, Copy)]
struct ModelMember {
    role: Role,
    joined_seq: Seq,
}

type Outcome = Result<(OpReply, Vec<RoomEvent>), ErrorCode>;

impl Model {
    pub fn apply(&mut self, now: UnixMs, op: &Op) -> Outcome {
        match &op.kind {
            OpKind::CreateRoom {
                kind,
                title,
                members,
            } => self.create(now, op, *kind, title, members),
            OpKind::Send {
                client_msg_id,
                text,
                reply_to_seq,
                mentions,
                files: _,
            } => self.send(now, op, *client_msg_id, text, *reply_to_seq, mentions),
            OpKind::ChangeMessage { seq, change } => self.change(now, op, *seq, change),
            OpKind::AddMembers { users } => self.add(now, op, users),
            OpKind::RemoveMembers { users } => self.remove(now, op, users),
            OpKind::SetRole { users, role } => self.set_role(now, op, users, *role),
            OpKind::UpdateRoom { title, picture } => self.update(now, op, title, picture),
            OpKind::Leave => self.remove(now, op, &[op.actor]),
            OpKind::Erase { .. } => unreachable!("no random test erases"),
            OpKind::SetBlock { user, blocked } => self.set_block(op.actor, *user, *blocked),
        }
    }

    fn set_block(&mut self, by: UserId, user: UserId, blocked: bool) -> Outcome {
        if !self.names.contains_key(&user) {
            return Err(ErrorCode::NotFound);
        }
        let was_severed = self.severed(by, &[user]);
        let changed = match blocked {
            true => self.blocks.insert((by, user)),
            false => self.blocks.remove(&(by, user)),
        };
        let severed = self.severed(by, &[user]);
        if let Some(room) = self.rooms.get_mut(&RoomId::direct(by, user)) {
            let marks = |who: &UserId| (*who, (room.read[who], room.delivered[who]));
            match (was_severed, severed) {
                (false, true) => room.shown = [by, user].iter().map(marks).collect(),
                (true, false) => room.shown.clear(),
                _ => (),
            }
        }
        let version = self.block_versions.entry(by).or_default();
        *version += u64::from(changed);
        let block = BlockChange {
            by,
            user,
            blocked,
            version: *version,
            severed,
        };
        Ok((OpReply::Block { block, changed }, Vec::new()))
    }

    fn severed(&self, user: UserId, others: &[UserId]) -> bool {
        let between = |a, b| self.blocks.contains(&(a, b)) || self.blocks.contains(&(b, a));
        others.iter().any(|other| between(user, *other))
    }

    /// Whether this is the direct room of two of whom one blocks the other.
    pub fn is_severed(&self, room: RoomId) -> bool {
        let found = self.rooms.get(&room);
        let direct = found.filter(|room| room.kind == RoomKind::Direct);
        direct.is_some_and(|room| {
            let users: Vec<UserId> = room.members.keys().copied().collect();
            self.severed(users[0], &users[1..])
        })
    }

    fn create(
        &mut self,
        now: UnixMs,
        op: &Op,
        kind: RoomKind,
        title: &Option<String>,
        others: &[UserId],
    ) -> Outcome {
        if let Some(room) = self.rooms.get(&op.room) {
            if kind == RoomKind::Group
                && (room.first_title != *title || room.first_members != others)
            {
                return Err(ErrorCode::IdempotencyConflict);
            }
            let view = if room.members.contains_key(&op.actor) {
                self.view(op.room, limits::ROOM_MEMBERS_SHOWN_MAX)
            } else {
                let RoomEventBody::RoomCreated { room } = &room.events[0].body else {
                    panic!("the first event of a room");
                };
                Room::clone(room)
            };
            let created = false;
            return Ok((
                OpReply::Room {
                    room: view,
                    created,
                },
                Vec::new(),
            ));
        }
        if !others.iter().all(|user| self.names.contains_key(user)) {
            return Err(ErrorCode::NotFound);
        }
        if self.severed(op.actor, others) {
            return Err(ErrorCode::Forbidden);
        }
        let mut room = ModelRoom {
            kind,
            title: title.clone(),
            picture: None,
            first_title: title.clone(),
            first_members: others.to_vec(),
            created_at: now,
            events: Vec::new(),
            members: BTreeMap::new(),
            former: Vec::new(),
            read: BTreeMap::new(),
            delivered: BTreeMap::new(),
            shown: BTreeMap::new(),
            muted_until: BTreeMap::new(),
            archived: BTreeMap::new(),
            messages: BTreeMap::new(),
            bodies: BTreeMap::new(),
            reactions: BTreeSet::new(),
            pins: BTreeMap::new(),
            floor: 0,
            reports: BTreeSet::new(),
        };
        for user in others.iter().chain([&op.actor]) {
            let is_owner = *user == op.actor && kind == RoomKind::Group;
            let role = if is_owner { Role::Owner } else { Role::Member };
            let joined_seq = 1;
            room.members.insert(*user, ModelMember { role, joined_seq });
            room.read.insert(*user, 1);
            room.delivered.insert(*user, 1);
        }
        self.rooms.insert(op.room, room);
        let mut view = self.view(op.room, limits::ROOM_MEMBERS_SHOWN_MAX);
        view.last_seq = 1;
        let body = RoomEventBody::RoomCreated {
            room: Box::new(view.clone()),
        };
        let event = self.event(now, op, |_| body);
        let created = true;
        Ok((
            OpReply::Room {
                room: view,
                created,
            },
            vec![event],
        ))
    }

    fn send(
        &mut self,
        now: UnixMs,
        op: &Op,
        client_msg_id: ClientMsgId,
        text: &str,
        reply_to_seq: Option<Seq>,
        mentions: &[Mention],
    ) -> Outcome {
        let is_severed = self.is_severed(op.room);
        let named = mentions.iter().filter_map(|mention| match mention {
            Mention::User(user) => Some(*user),
            Mention::All(_) => None,
        });
        let names_severed = self.severed(op.actor, &named.collect::<Vec<_>>());
        let room = self.rooms.get_mut(&op.room).ok_or(ErrorCode::Forbidden)?;
        let sent = |seq, ts, duplicate| {
            OpReply::Sent(Sent {
                client_msg_id,
                room_id: op.room,
                seq,
                ts,
                duplicate,
            })
        };
        for message in room.messages.values() {
            if message.sender_id == op.actor && message.client_msg_id == Some(client_msg_id) {
                let first = format!("{:?}", room.bodies[&message.seq]);
                return if first == format!("{:?}", op.kind) {
                    Ok((sent(message.seq, message.created_at, true), Vec::new()))
                } else {
                    Err(ErrorCode::IdempotencyConflict)
                };
            }
        }
        if !room.members.contains_key(&op.actor) || is_severed {
            return Err(ErrorCode::Forbidden);
        }
        if reply_to_seq.is_some_and(|seq| seq > 0 && seq <= room.floor) {
            return Err(ErrorCode::Gone);
        }
        if reply_to_seq.is_some_and(|seq| !room.messages.contains_key(&seq)) {
            return Err(ErrorCode::NotFound);
        }
        for mention in mentions {
            match mention {
                Mention::All(_) if room.members[&op.actor].role == Role::Member => {
                    return Err(ErrorCode::Forbidden);
                }
                Mention::User(user) if !room.members.contains_key(user) => {
                    return Err(ErrorCode::NotFound);
                }
                Mention::All(_) | Mention::User(_) => (),
            }
        }
        if names_severed {
            return Err(ErrorCode::Forbidden);
        }
        let next = room.events.len() as u64 + 1;
        room.read.insert(op.actor, next);
        room.delivered.insert(op.actor, next);
        room.bodies.insert(next, op.kind.clone());
        let event = self.event(now, op, |ts| RoomEventBody::MessageCreated {
            message_seq: next,
            message: Box::new(Message {
                client_msg_id: Some(client_msg_id),
                kind: MessageKind::Text,
                text: Some(text.to_owned()),
                reply_to_seq,
                mentions: mentions.to_vec(),
                ..system_message(next, op.actor, ts)
            }),
        });
        Ok((sent(event.seq, event.ts, false), vec![event]))
    }

    fn change(&mut self, now: UnixMs, op: &Op, seq: Seq, change: &MessageChange) -> Outcome {
        let is_severed = self.is_severed(op.room);
        let room = self.rooms.get_mut(&op.room).ok_or(ErrorCode::Forbidden)?;
        let role = match change {
            // By the service, which is no member.
            MessageChange::Moderate(_) => Role::Owner,
            _ => {
                let member = room.members.get(&op.actor).ok_or(ErrorCode::Forbidden)?;
                member.role
            }
        };
        let message = room.messages.get(&seq).ok_or(ErrorCode::NotFound)?.clone();
        let (is_own, leads) = (message.sender_id == op.actor, role != Role::Member);
        let may = match change {
            MessageChange::Edit { .. } => is_own,
            MessageChange::Delete { .. } => is_own || leads,
            MessageChange::Moderate(_) => true,
            MessageChange::Pin | MessageChange::Unpin => leads || room.kind == RoomKind::Direct,
            MessageChange::AddReaction { .. }
            | MessageChange::RemoveReaction { .. }
            | MessageChange::Report => true,
        };
        if !may || message.kind == MessageKind::System {
            return Err(ErrorCode::Forbidden);
        }
        let reply = |message: &Message, changed| {
            OpReply::Message(MessageChanged {
                room_id: op.room,
                message_seq: seq,
                changed,
                seq: message.changed_seq,
                revision: message.revision,
            })
        };
        let own = |emoji: &String| (seq, op.actor, emoji.clone());
        let pinned = room.pins.iter().find(|(_, pin)| pin.message_seq == seq);
        let pinned = pinned.map(|(event, _)| *event);
        let holds = match change {
            MessageChange::Edit { text, .. } => message.text.as_ref() == Some(text),
            MessageChange::Delete { .. } | MessageChange::Moderate(_) => {
                message.deleted_at.is_some()
            }
            MessageChange::AddReaction { emoji } => room.reactions.contains(&own(emoji)),
            MessageChange::RemoveReaction { emoji } => !room.reactions.contains(&own(emoji)),
            MessageChange::Pin => pinned.is_some(),
            MessageChange::Unpin => pinned.is_none(),
            MessageChange::Report => {
                message.deleted_at.is_none() && !room.reports.insert((seq, op.actor))
            }
        };
        if holds {
            return Ok((reply(&message, false), Vec::new()));
        }
        if message.deleted_at.is_some() {
            return Err(ErrorCode::Gone);
        }
        if let MessageChange::Edit {
            expected_revision, ..
        }
        | MessageChange::Delete { expected_revision } = change
            && expected_revision.is_some_and(|expected| expected != message.revision)
        {
            return Err(ErrorCode::RevisionConflict);
        }
        let says_something = matches!(
            change,
            MessageChange::Edit { .. } | MessageChange::AddReaction { .. } | MessageChange::Pin
        );
        if is_severed && says_something {
            return Err(ErrorCode::Forbidden);
        }
        if *change == MessageChange::Report {
            return Ok((reply(&message, true), Vec::new()));
        }
        let (next, message_seq, actor_id) = (room.events.len() as Seq + 1, seq, op.actor);
        let ts = room.events.last().map_or(now, |event| event.ts.max(now));
        let message = room.messages.get_mut(&seq).expect("looked up above");
        message.changed_seq = next;
        let mut react = |emoji: &String, added: bool| {
            let reaction = message.reactions.entry(emoji.clone()).or_default();
            reaction.count = if added {
                room.reactions.insert(own(emoji));
                reaction.count + 1
            } else {
                room.reactions.remove(&own(emoji));
                reaction.count - 1
            };
            let count = reaction.count;
            message.reactions.retain(|_, reaction| reaction.count > 0);
            RoomEventBody::ReactionUpdated(ReactionUpdated {
                message_seq,
                user_id: op.actor,
                emoji: emoji.clone(),
                added,
                count,
            })
        };
        let body = match change {
            MessageChange::Edit { text, .. } => {
                message.text = Some(text.clone());
                message.revision += 1;
                message.edited_at = Some(ts);
                let message = Box::new(message.clone());
                RoomEventBody::MessageUpdated {
                    message_seq,
                    message,
                }
            }
            MessageChange::Delete { .. } | MessageChange::Moderate(_) => {
                message.text = None;
                message.mentions.clear();
                message.reactions.clear();
                message.deleted_at = Some(ts);
                room.reactions.retain(|(of, ..)| *of != seq);
                room.pins.retain(|_, pin| pin.message_seq != seq);
                RoomEventBody::MessageDeleted(MessageDeleted {
                    message_seq,
                    actor_id,
                    deleted_at: ts,
                })
            }
            MessageChange::AddReaction { emoji } => react(emoji, true),
            MessageChange::RemoveReaction { emoji } => react(emoji, false),
            MessageChange::Pin => {
                let pin = Pin {
                    message_seq,
                    pinned_by: actor_id,
                    pinned_at: ts,
                };
                room.pins.insert(next, pin);
                RoomEventBody::MessagePinned(MessagePinned {
                    message_seq,
                    actor_id,
                })
            }
            MessageChange::Unpin => {
                room.pins.retain(|_, pin| pin.message_seq != seq);
                RoomEventBody::MessageUnpinned(MessageUnpinned {
                    message_seq,
                    actor_id,
                })
            }
            MessageChange::Report => panic!("is no event"),
        };
        let reply = reply(&room.messages[&seq], true);
        let event = self.event(now, op, |_| body);
        Ok((reply, vec![event]))
    }

    fn add(&mut self, now: UnixMs, op: &Op, users: &[UserId]) -> Outcome {
        let room = self.rooms.get(&op.room).ok_or(ErrorCode::Forbidden)?;
        let own = room.members.get(&op.actor).map(|member| member.role);
        if room.kind == RoomKind::Direct || own < Some(Role::Admin) {
            return Err(ErrorCode::Forbidden);
        }
        let joining: Vec<UserId> = users
            .iter()
            .copied()
            .filter(|user| !room.members.contains_key(user))
            .collect();
        if !joining.iter().all(|user| self.names.contains_key(user)) {
            return Err(ErrorCode::NotFound);
        }
        if self.severed(op.actor, &joining) {
            return Err(ErrorCode::Forbidden);
        }
        let mut events = Vec::new();
        for user_id in joining {
            let name = self.names[&user_id].clone();
            let role = Role::Member;
            let event = self.event(now, op, |_| {
                RoomEventBody::MemberJoined(MemberJoined {
                    user_id,
                    name,
                    role,
                    actor_id: op.actor,
                })
            });
            let joined_seq = event.seq;
            let room = self.rooms.get_mut(&op.room).expect("looked up above");
            room.members
                .insert(user_id, ModelMember { role, joined_seq });
            room.read.insert(user_id, joined_seq);
            room.delivered.insert(user_id, joined_seq);
            events.push(event);
        }
        Ok((
            OpReply::Changed(events.last().map(|event| event.seq)),
            events,
        ))
    }

    fn remove(&mut self, now: UnixMs, op: &Op, users: &[UserId]) -> Outcome {
        let room = self.rooms.get(&op.room).ok_or(ErrorCode::Forbidden)?;
        if room.kind == RoomKind::Direct {
            return Err(ErrorCode::Forbidden);
        }
        let Some(own) = room.members.get(&op.actor).map(|member| member.role) else {
            return if users == [op.actor] && room.former.contains(&op.actor) {
                Ok((OpReply::Changed(None), Vec::new()))
            } else {
                Err(ErrorCode::Forbidden)
            };
        };
        if own == Role::Member && users != [op.actor] {
            return Err(ErrorCode::Forbidden);
        }
        let others = users.iter().copied().filter(|user| *user != op.actor);
        let mut leaving = Vec::new();
        for user in others {
            let role = room.members.get(&user).map(|member| member.role);
            if role >= Some(own) {
                return Err(ErrorCode::Forbidden);
            }
            leaving.extend(role.map(|_| user));
        }
        leaving.extend(users.contains(&op.actor).then_some(op.actor));
        let mut events = Vec::new();
        for user_id in leaving {
            let actor_id = op.actor;
            events.push(self.event(now, op, |_| {
                RoomEventBody::MemberLeft(MemberLeft { user_id, actor_id })
            }));
            let room = self.rooms.get_mut(&op.room).expect("looked up above");
            room.members.remove(&user_id);
            room.former.push(user_id);
        }
        let room = self.rooms.get_mut(&op.room).expect("looked up above");
        if own == Role::Owner && users.contains(&op.actor) {
            let heir = room
                .members
                .iter_mut()
                .min_by_key(|(user, member)| (Reverse(member.role), member.joined_seq, **user));
            if let Some((user_id, member)) = heir {
                let (user_id, role, actor_id) = (*user_id, Role::Owner, op.actor);
                member.role = role;
                let changed = MemberRoleChanged {
                    user_id,
                    role,
                    actor_id,
                };
                events.push(self.event(now, op, |_| RoomEventBody::MemberRoleChanged(changed)));
            }
        }
        Ok((
            OpReply::Changed(events.last().map(|event| event.seq)),
            events,
        ))
    }

    fn set_role(&mut self, now: UnixMs, op: &Op, users: &[UserId], role: Role) -> Outcome {
        let room = self.rooms.get(&op.room).ok_or(ErrorCode::Forbidden)?;
        let own = room.members.get(&op.actor).map(|member| member.role);
        if own != Some(Role::Owner) {
            return Err(ErrorCode::Forbidden);
        }
        if !users.iter().all(|user| room.members.contains_key(user)) {
            return Err(ErrorCode::NotFound);
        }
        let mut given: Vec<(UserId, Role)> = users.iter().map(|user| (*user, role)).collect();
        given.retain(|(user, role)| room.members[user].role != *role);
        if given.iter().any(|(user, _)| *user == op.actor) {
            return Err(ErrorCode::Forbidden);
        }
        if role == Role::Owner && !given.is_empty() {
            given.push((op.actor, Role::Admin));
        }
        let mut events = Vec::new();
        for (user_id, role) in given {
            let room = self.rooms.get_mut(&op.room).expect("looked up above");
            room.members.get_mut(&user_id).expect("a member").role = role;
            let actor_id = op.actor;
            let changed = MemberRoleChanged {
                user_id,
                role,
                actor_id,
            };
            events.push(self.event(now, op, |_| RoomEventBody::MemberRoleChanged(changed)));
        }
        Ok((
            OpReply::Changed(events.last().map(|event| event.seq)),
            events,
        ))
    }

    fn update(
        &mut self,
        now: UnixMs,
        op: &Op,
        title: &Option<Option<String>>,
        picture: &Option<Option<String>>,
    ) -> Outcome {
        let room = self.rooms.get_mut(&op.room).ok_or(ErrorCode::Forbidden)?;
        let own = room.members.get(&op.actor).map(|member| member.role);
        if room.kind == RoomKind::Direct || own < Some(Role::Admin) {
            return Err(ErrorCode::Forbidden);
        }
        let title = title.clone().filter(|title| room.title != *title);
        let picture = picture.clone().filter(|picture| room.picture != *picture);
        if title.is_none() && picture.is_none() {
            return Ok((OpReply::Changed(None), Vec::new()));
        }
        if let Some(title) = &title {
            room.title.clone_from(title);
        }
        if let Some(picture) = &picture {
            room.picture.clone_from(picture);
        }
        let updated = RoomUpdated {
            title,
            picture,
            actor_id: op.actor,
        };
        let event = self.event(now, op, |_| RoomEventBody::RoomUpdated(updated));
        Ok((OpReply::Changed(Some(event.seq)), vec![event]))
    }

    fn event(
        &mut self,
        now: UnixMs,
        op: &Op,
        body: impl FnOnce(UnixMs) -> RoomEventBody,
    ) -> RoomEvent {
        let room = self.rooms.get_mut(&op.room).expect("a room");
        let ts = room.events.last().map_or(now, |event| event.ts.max(now));
        let event = RoomEvent {
            room_id: op.room,
            seq: room.events.len() as u64 + 1,
            ts,
            body: body(ts),
        };
        let told = match &event.body {
            RoomEventBody::MessageCreated { message, .. } => Err(Some(Message::clone(message))),
            RoomEventBody::RoomCreated { .. } => {
                let actor_id = op.actor;
                Ok(SystemEvent::RoomCreated { actor_id })
            }
            RoomEventBody::MemberJoined(joined) => Ok(SystemEvent::MemberJoined(joined.clone())),
            RoomEventBody::MemberLeft(left) => Ok(SystemEvent::MemberLeft(left.clone())),
            RoomEventBody::MemberRoleChanged(changed) => {
                Ok(SystemEvent::MemberRoleChanged(changed.clone()))
            }
            RoomEventBody::RoomUpdated(updated) => Ok(SystemEvent::RoomUpdated(updated.clone())),
            _ => Err(None),
        };
        let message = match told {
            Ok(told) => Some(Message {
                event: Some(told),
                ..system_message(event.seq, op.actor, event.ts)
            }),
            Err(message) => message,
        };
        room.messages
            .extend(message.map(|message| (message.seq, message)));
        room.events.push(event.clone());
        event
    }

    pub fn view(&self, room_id: RoomId, members_max: usize) -> Room {
        let room = &self.rooms[&room_id];
        let mut members: Vec<(Seq, UserId)> = room
            .members
            .iter()
            .map(|(user, member)| (member.joined_seq, *user))
            .collect();
        members.sort_unstable();
        members.truncate(members_max);
        let member = |(_, user_id): (Seq, UserId)| {
            let marks = (room.read[&user_id], room.delivered[&user_id]);
            let (read_seq, delivered_seq) = *room.shown.get(&user_id).unwrap_or(&marks);
            Member {
                user_id,
                name: self.names[&user_id].clone(),
                role: room.members[&user_id].role,
                read_seq,
                delivered_seq,
            }
        };
        Room {
            room_id,
            kind: room.kind,
            title: room.title.clone(),
            picture: room.picture.clone(),
            created_at: room.created_at,
            last_seq: room.events.len() as u64,
            member_count: room.members.len() as u32,
            members: members.into_iter().map(member).collect(),
            pins: Some(room.pins.values().rev().cloned().collect()),
        }
    }

    /// Where this user is a member: by last activity, newest first.
    pub fn rooms_of(&self, user: UserId) -> Vec<RoomId> {
        let mut rooms: Vec<(Reverse<UnixMs>, RoomId)> = self
            .rooms
            .iter()
            .filter(|(_, room)| room.members.contains_key(&user))
            .map(|(id, room)| (Reverse(room.events.last().expect("events").ts), *id))
            .collect();
        rooms.sort_unstable();
        rooms.into_iter().map(|(_, id)| id).collect()
    }

    pub fn read_seq(&self, room: RoomId, user: UserId) -> Option<Seq> {
        let room = self.rooms.get(&room)?;
        room.members.contains_key(&user).then(|| room.read[&user])
    }

    pub fn receipt(&mut self, receipt: &Receipt) -> ReceiptOutcome {
        let room = self.rooms.get_mut(&receipt.room);
        let Some(room) = room.filter(|room| room.members.contains_key(&receipt.user)) else {
            return ReceiptOutcome::NotAMember;
        };
        let last_seq = room.events.len() as Seq;
        let before = (room.read[&receipt.user], room.delivered[&receipt.user]);
        let read_seq = before.0.max(receipt.read_seq.min(last_seq));
        let delivered_seq = before
            .1
            .max(receipt.delivered_seq.min(last_seq))
            .max(read_seq);
        room.read.insert(receipt.user, read_seq);
        room.delivered.insert(receipt.user, delivered_seq);
        match (read_seq, delivered_seq) == before {
            true => ReceiptOutcome::Known,
            false => ReceiptOutcome::Advanced {
                read_seq,
                delivered_seq,
                is_read: read_seq > before.0,
            },
        }
    }

    pub fn set_own(&mut self, set: &SetOwn) -> Result<bool, ErrorCode> {
        let before = self
            .own_view(set.room, set.user, set.now)
            .ok_or(ErrorCode::Forbidden)?;
        let room = self.rooms.get_mut(&set.room).expect("looked up above");
        match set.change {
            OwnChange::Mute(until) => {
                if room.muted_until.get(&set.user).copied() == until {
                    return Ok(false);
                }
                match until {
                    Some(until) => room.muted_until.insert(set.user, until),
                    None => room.muted_until.remove(&set.user),
                };
                if !before.archived {
                    room.archived.remove(&set.user);
                }
            }
            OwnChange::Archive(archive) if archive == before.archived => return Ok(false),
            OwnChange::Archive(true) => {
                room.archived.insert(set.user, room.events.len() as Seq);
            }
            OwnChange::Archive(false) => {
                room.archived.remove(&set.user);
            }
        }
        Ok(true)
    }

    /// What a room is to this user alone, if a member.
    pub fn own_view(&self, id: RoomId, user: UserId, now: UnixMs) -> Option<OwnView> {
        let read_seq = self.read_seq(id, user)?;
        let room = &self.rooms[&id];
        let muted_until = room.muted_until.get(&user).copied();
        let muted_until = muted_until.filter(|until| *until > now);
        let spoken = |since: Seq| {
            let mut messages = room.messages.values();
            messages.any(|it| it.seq > since && it.kind == MessageKind::Text)
        };
        let archived = room.archived.get(&user);
        Some(OwnView {
            read_seq,
            unread: self.unread(id, user),
            muted_until,
            archived: archived.is_some_and(|since| muted_until.is_some() || !spoken(*since)),
        })
    }

    pub fn roles(&self, room: RoomId) -> Vec<(UserId, Role)> {
        let members = &self.rooms[&room].members;
        let mut roles: Vec<(UserId, Role)> = members.iter().map(|(u, m)| (*u, m.role)).collect();
        roles.sort_unstable();
        roles
    }

    pub fn unread(&self, room: RoomId, user: UserId) -> u32 {
        let read_seq = self.rooms[&room].read[&user];
        let messages = self.messages(room, user);
        let unread = messages.iter().filter(|message| {
            message.seq > read_seq
                && message.kind == MessageKind::Text
                && message.sender_id != user
                && message.deleted_at.is_none()
        });
        (unread.count() as u32).min(limits::UNREAD_MAX)
    }

    pub fn last_message(&self, room: RoomId, user: UserId) -> Option<Message> {
        let mut messages = self.messages(room, user);
        messages.retain(|message| message.kind == MessageKind::Text);
        messages.pop()
    }

    /// Drops what is older than so many days, as far as one step goes.
    pub fn retain(&mut self, now: UnixMs, room: RoomId, days: u32) {
        let Some(room) = self.rooms.get_mut(&room) else {
            return;
        };
        let before = now.0.saturating_sub(u64::from(days) * DAY_MS);
        let stretch = room.events.iter().skip(room.floor as usize);
        let dropped = stretch.take(RETAIN_STRETCH as usize);
        let dropped = dropped.take_while(|event| event.ts.0 < before).count();
        if dropped == 0 {
            return;
        }
        let (floor, last_seq) = (room.floor + dropped as Seq, room.events.len() as Seq);
        room.floor = floor;
        room.messages.retain(|seq, message| {
            let stays = *seq == 1 || *seq == last_seq || *seq > floor;
            stays || message.kind != MessageKind::System
        });
        for (_, message) in room.messages.range_mut(..=floor) {
            if message.kind == MessageKind::Text {
                message.text = None;
                message.mentions.clear();
                message.reactions.clear();
                message.deleted_at.get_or_insert(now);
            }
        }
        room.reactions.retain(|(of, ..)| *of > floor);
        room.pins.retain(|_, pin| pin.message_seq > floor);
    }

    pub fn events(&self, read: &EventsRead) -> Vec<RoomEvent> {
        let Some(room) = self.rooms.get(&read.room) else {
            return Vec::new();
        };
        let stretch = room.events.iter();
        let after = read.after.max(room.floor);
        let stretch = stretch.filter(|event| after < event.seq && event.seq <= read.to);
        // Told again, a message is in its current state.
        let now = |event: &RoomEvent| {
            let mut event = event.clone();
            if let RoomEventBody::MessageCreated { message, .. }
            | RoomEventBody::MessageUpdated { message, .. } = &mut event.body
            {
                **message = room.messages[&message.seq].clone();
            }
            event
        };
        let mut stretch: Vec<RoomEvent> = stretch.map(now).collect();
        if read.newest {
            stretch.reverse();
        }
        let mut bytes = 0;
        let fits = stretch.iter().take(read.events_max).take_while(|event| {
            let is_first = bytes == 0 && event.seq == stretch[0].seq;
            if let Some(message) = event.body.message() {
                bytes += message.text.as_ref().map_or(0, String::len);
            }
            is_first || bytes <= read.bytes_max
        });
        let fits = fits.count();
        stretch.truncate(fits);
        stretch.sort_by_key(|event| event.seq);
        stretch
    }

    /// All messages of a room, by `seq`, as this user is shown them.
    fn messages(&self, room: RoomId, user: UserId) -> Vec<Message> {
        let room = &self.rooms[&room];
        let above = room.messages.range(room.floor + 1..);
        let mut messages: Vec<Message> = above.map(|(_, message)| message.clone()).collect();
        for message in &mut messages {
            for (emoji, reaction) in &mut message.reactions {
                let own = (message.seq, user, emoji.clone());
                reaction.mine = Some(room.reactions.contains(&own));
            }
        }
        messages
    }

    pub fn history(&self, read: &HistoryRead) -> Result<History, ErrorCode> {
        self.read_seq(read.room, read.user)
            .ok_or(ErrorCode::Forbidden)?;
        let all = self.messages(read.room, read.user);
        let last_seq = self.rooms[&read.room].events.len() as Seq;
        let older = |before: Seq| all.iter().rev().filter(move |message| message.seq < before);
        let newer = |after: Seq| all.iter().filter(move |message| message.seq > after);
        // In the order in which messages are taken into the page.
        let wanted: Vec<&Message> = match read.page {
            HistoryPage::Newest => older(Seq::MAX).collect(),
            HistoryPage::Before(seq) => older(seq).collect(),
            HistoryPage::After(seq) => {
                let mut changed: Vec<&Message> = all.iter().collect();
                changed.retain(|message| message.changed_seq > seq);
                changed.sort_by_key(|message| message.changed_seq);
                changed
            }
            HistoryPage::Around(seq) => {
                let mut sides = [older(seq + 1).collect::<Vec<_>>(), newer(seq).collect()];
                let mut wanted = Vec::new();
                while sides.iter().any(|side| !side.is_empty()) {
                    for side in &mut sides {
                        if !side.is_empty() {
                            wanted.push(side.remove(0));
                        }
                    }
                }
                wanted
            }
        };
        let mut bytes = 0;
        let mut taken = 0;
        for message in &wanted {
            bytes += message.text.as_ref().map_or(0, String::len);
            bytes += 39 * message.mentions.len() + 64 * message.reactions.len();
            if taken == read.limit || (taken > 0 && bytes > read.bytes_max) {
                break;
            }
            taken += 1;
        }
        let has_more = taken < wanted.len();
        let mut messages: Vec<Message> = wanted[..taken].iter().copied().cloned().collect();
        match read.page {
            HistoryPage::After(_) => (),
            _ => messages.sort_by_key(|message| message.seq),
        }
        let next_after_seq = match read.page {
            HistoryPage::After(_) if has_more => messages.last().map(|message| message.changed_seq),
            HistoryPage::After(_) => Some(last_seq),
            HistoryPage::Newest | HistoryPage::Before(_) | HistoryPage::Around(_) => None,
        };
        Ok(History {
            messages,
            has_more,
            last_seq,
            next_after_seq,
            floor_seq: Some(self.rooms[&read.room].floor).filter(|floor| *floor > 0),
        })
    }
}

fn system_message(seq: Seq, sender_id: UserId, created_at: UnixMs) -> Message {
    Message {
        seq,
        sender_id,
        client_msg_id: None,
        kind: MessageKind::System,
        text: None,
        event: None,
        attachments: Vec::new(),
        reply_to_seq: None,
        mentions: Vec::new(),
        reactions: BTreeMap::new(),
        changed_seq: seq,
        revision: 1,
        edited_at: None,
        deleted_at: None,
        created_at,
    }
}

/// A model that knows users 1 to `count`, as [`Backend::users`] makes them.
pub fn with_users(count: u128) -> Model {
    Model {
        names: (1..=count).map(|n| (user(n), format!("u{n}"))).collect(),
        ..Model::default()
    }
}
