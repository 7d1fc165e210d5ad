//! The rules once more, as simply as they can be said: lists in memory, no index, no page.

use crate::harness::*;
use caffis_chat::chat::port::*;
use caffis_chat::limits;
use caffis_chat::protocol::event::{RoomEvent, RoomEventBody};
use caffis_chat::protocol::reply::{History, Sent};
use caffis_chat::protocol::view::*;
use caffis_chat::protocol::{ClientMsgId, ErrorCode, RoomId, Seq, UnixMs, UserId};
use std::cmp::Reverse;
use std::collections::BTreeMap;

#[derive(Default)]
pub struct Model {
    pub rooms: BTreeMap<RoomId, ModelRoom>,
    pub names: BTreeMap<UserId, String>,
}

pub struct ModelRoom {
    kind: RoomKind,
    title: Option<String>,
    first_members: Vec<UserId>,
    created_at: UnixMs,
    pub events: Vec<RoomEvent>,
    /// Who caused each event.
    actors: Vec<UserId>,
    members: BTreeMap<UserId, ModelMember>,
    former: Vec<UserId>,
    read: BTreeMap<UserId, Seq>,
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
            } => self.send(now, op, *client_msg_id, text, *reply_to_seq),
            OpKind::AddMembers { users } => self.add(now, op, users),
            OpKind::RemoveMembers { users } => self.remove(now, op, users),
            OpKind::Leave => self.remove(now, op, &[op.actor]),
        }
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
            if kind == RoomKind::Group && (room.title != *title || room.first_members != others) {
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
        let mut room = ModelRoom {
            kind,
            title: title.clone(),
            first_members: others.to_vec(),
            created_at: now,
            events: Vec::new(),
            actors: Vec::new(),
            members: BTreeMap::new(),
            former: Vec::new(),
            read: BTreeMap::new(),
        };
        for user in others.iter().chain([&op.actor]) {
            let is_owner = *user == op.actor && kind == RoomKind::Group;
            let role = if is_owner { Role::Owner } else { Role::Member };
            let joined_seq = 1;
            room.members.insert(*user, ModelMember { role, joined_seq });
            room.read.insert(*user, 1);
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
    ) -> Outcome {
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
        for event in &room.events {
            if let RoomEventBody::MessageCreated { message } = &event.body
                && message.sender_id == op.actor
                && message.client_msg_id == Some(client_msg_id)
            {
                return if message.text.as_deref() == Some(text)
                    && message.reply_to_seq == reply_to_seq
                {
                    Ok((sent(event.seq, event.ts, true), Vec::new()))
                } else {
                    Err(ErrorCode::IdempotencyConflict)
                };
            }
        }
        if !room.members.contains_key(&op.actor) {
            return Err(ErrorCode::Forbidden);
        }
        if reply_to_seq.is_some_and(|seq| seq == 0 || seq > room.events.len() as u64) {
            return Err(ErrorCode::NotFound);
        }
        let next = room.events.len() as u64 + 1;
        room.read.insert(op.actor, next);
        let event = self.event(now, op, |ts| RoomEventBody::MessageCreated {
            message: Box::new(Message {
                client_msg_id: Some(client_msg_id),
                kind: MessageKind::Text,
                text: Some(text.to_owned()),
                reply_to_seq,
                ..system_message(next, op.actor, ts)
            }),
        });
        Ok((sent(event.seq, event.ts, false), vec![event]))
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
        room.events.push(event.clone());
        room.actors.push(op.actor);
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
        let member = |(_, user_id): (Seq, UserId)| Member {
            user_id,
            name: self.names[&user_id].clone(),
            role: room.members[&user_id].role,
            read_seq: room.read[&user_id],
            delivered_seq: room.read[&user_id],
        };
        Room {
            room_id,
            kind: room.kind,
            title: room.title.clone(),
            created_at: room.created_at,
            last_seq: room.events.len() as u64,
            member_count: room.members.len() as u32,
            members: members.into_iter().map(member).collect(),
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

    pub fn roles(&self, room: RoomId) -> Vec<(UserId, Role)> {
        let members = &self.rooms[&room].members;
        let mut roles: Vec<(UserId, Role)> = members.iter().map(|(u, m)| (*u, m.role)).collect();
        roles.sort_unstable();
        roles
    }

    pub fn unread(&self, room: RoomId, user: UserId) -> u32 {
        let read_seq = self.rooms[&room].read[&user];
        let messages = self.messages(room);
        let unread = messages.iter().filter(|message| {
            message.seq > read_seq && message.kind == MessageKind::Text && message.sender_id != user
        });
        (unread.count() as u32).min(limits::UNREAD_MAX)
    }

    pub fn last_message(&self, room: RoomId) -> Option<Message> {
        let mut messages = self.messages(room);
        messages.retain(|message| message.kind == MessageKind::Text);
        messages.pop()
    }

    pub fn events(&self, read: &EventsRead) -> Vec<RoomEvent> {
        let Some(room) = self.rooms.get(&read.room) else {
            return Vec::new();
        };
        let stretch = room.events.iter();
        let stretch = stretch.filter(|event| read.after < event.seq && event.seq <= read.to);
        let mut stretch: Vec<RoomEvent> = stretch.cloned().collect();
        if read.newest {
            stretch.reverse();
        }
        let mut bytes = 0;
        let fits = stretch.iter().take(read.events_max).take_while(|event| {
            let is_first = bytes == 0 && event.seq == stretch[0].seq;
            if let RoomEventBody::MessageCreated { message } = &event.body {
                bytes += message.text.as_ref().map_or(0, String::len);
            }
            is_first || bytes <= read.bytes_max
        });
        let fits = fits.count();
        stretch.truncate(fits);
        stretch.sort_by_key(|event| event.seq);
        stretch
    }

    /// All messages of a room, by `seq`; nothing can be changed yet.
    fn messages(&self, room: RoomId) -> Vec<Message> {
        let room = &self.rooms[&room];
        let events = room.events.iter().zip(&room.actors);
        let message = |(event, actor): (&RoomEvent, &UserId)| {
            let told = match &event.body {
                RoomEventBody::MessageCreated { message } => return Message::clone(message),
                RoomEventBody::RoomCreated { .. } => SystemEvent::RoomCreated { actor_id: *actor },
                RoomEventBody::MemberJoined(joined) => SystemEvent::MemberJoined(joined.clone()),
                RoomEventBody::MemberLeft(left) => SystemEvent::MemberLeft(left.clone()),
                RoomEventBody::MemberRoleChanged(changed) => {
                    SystemEvent::MemberRoleChanged(changed.clone())
                }
            };
            Message {
                event: Some(told),
                ..system_message(event.seq, *actor, event.ts)
            }
        };
        events.map(message).collect()
    }

    pub fn history(&self, read: &HistoryRead) -> Result<History, ErrorCode> {
        self.read_seq(read.room, read.user)
            .ok_or(ErrorCode::Forbidden)?;
        let all = self.messages(read.room);
        let last_seq = all.len() as Seq;
        let older = |before: Seq| all.iter().rev().filter(move |message| message.seq < before);
        let newer = |after: Seq| all.iter().filter(move |message| message.seq > after);
        // In the order in which messages are taken into the page.
        let wanted: Vec<&Message> = match read.page {
            HistoryPage::Newest => older(Seq::MAX).collect(),
            HistoryPage::Before(seq) => older(seq).collect(),
            HistoryPage::After(seq) => newer(seq).collect(),
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
            if taken == read.limit || (taken > 0 && bytes > read.bytes_max) {
                break;
            }
            taken += 1;
        }
        let has_more = taken < wanted.len();
        let mut messages: Vec<Message> = wanted[..taken].iter().copied().cloned().collect();
        messages.sort_by_key(|message| message.seq);
        let next_after_seq = match read.page {
            HistoryPage::After(_) if has_more => messages.last().map(|message| message.seq),
            HistoryPage::After(_) => Some(last_seq),
            HistoryPage::Newest | HistoryPage::Before(_) | HistoryPage::Around(_) => None,
        };
        Ok(History {
            messages,
            has_more,
            last_seq,
            next_after_seq,
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
