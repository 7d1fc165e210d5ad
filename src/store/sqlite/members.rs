//! Writes that change who is a member: open a room, add, remove, leave.
//!
//! Invariants: the `version` of every user whose rooms change rises in the same transaction; every
//! joining and leaving is one event with a `seq` of its own; a group with members has one owner.

use super::blocks;
use super::marks;
use super::read::{room_as_opened, whole_room};
use super::row::{Failure, int, refuse, user_id};
use super::write::{Batch, Head, Seat};
use crate::chat::access::{self, Action};
use crate::chat::port::{OpDone, OpOutcome, OpReply};
use crate::limits;
use crate::protocol::event::{RoomEvent, RoomEventBody};
use crate::protocol::hooks::{HookKind, RoomCreated};
use crate::protocol::view::{
    Member, MemberJoined, MemberLeft, MemberRoleChanged, Role, Room, RoomKind, RoomUpdated,
    SystemEvent,
};
use crate::protocol::{ErrorCode, RoomId, Seq, UserId};
use crate::store::changes;
use crate::store::common::{OPENED_SEQ, Opened, is_well_formed, room_hash};
use rusqlite::{OptionalExtension, params};

impl Batch<'_> {
    pub(super) fn create_room(
        &mut self,
        room: RoomId,
        actor: UserId,
        kind: RoomKind,
        title: Option<&str>,
        others: &[UserId],
    ) -> Result<OpOutcome, Failure> {
        let body_hash = room_hash(self.hash_key, kind, title, others);
        let first: Option<[u8; 16]> = self
            .connection
            .prepare_cached("SELECT body_hash FROM chat_rooms WHERE room_id = ?1")?
            .query_row([room.0.as_bytes()], |row| row.get(0))
            .optional()?;
        if let Some(first) = first {
            return self.created_before(room, actor, kind, first == body_hash);
        }
        if !is_well_formed(room, actor, kind, others) {
            return Ok(refuse(
                ErrorCode::BadRequest,
                "not the members of such a room",
            ));
        }
        if others.len() >= limits::MEMBERS_MAX {
            return Ok(refuse(ErrorCode::TooLarge, "too many members"));
        }
        let mut users: Vec<UserId> = others.to_vec();
        users.push(actor);
        users.sort_unstable();
        let mut members = Vec::with_capacity(users.len().min(limits::ROOM_MEMBERS_SHOWN_MAX));
        for user in &users {
            let Some((name, room_count)) = self.user(*user)? else {
                return Ok(refuse(ErrorCode::NotFound, "no such user"));
            };
            if room_count >= limits::ROOMS_PER_USER_MAX {
                return Ok(refuse(ErrorCode::TooLarge, "a user is in too many rooms"));
            }
            if members.len() < limits::ROOM_MEMBERS_SHOWN_MAX {
                members.push(Member {
                    user_id: *user,
                    name,
                    role: first_role(kind, *user == actor),
                    read_seq: OPENED_SEQ,
                    delivered_seq: OPENED_SEQ,
                });
            }
        }
        if blocks::is_severed(self.connection, actor, others)? {
            return Ok(forbidden());
        }
        let view = Room {
            room_id: room,
            kind,
            title: title.map(str::to_owned),
            picture: None,
            created_at: self.now,
            last_seq: OPENED_SEQ,
            member_count: users.len() as u32,
            members,
            pins: Some(Vec::new()),
        };
        self.connection
            .prepare_cached(
                "INSERT INTO chat_rooms (room_id, kind, title, created_by, created_at,
                     member_count, body_hash)
                 VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)",
            )?
            .execute(params![
                room.0.as_bytes(),
                kind.name(),
                title,
                actor.0.as_bytes(),
                int(self.now.0),
                int(users.len() as u64),
                body_hash,
            ])?;
        self.open_head(
            room,
            Head {
                kind,
                last_seq: 0,
                last_ts: self.now,
                severed: false,
                member_count: 0,
                members_changed: true,
                reuse: false,
            },
        );
        for user in users {
            self.join(room, user, first_role(kind, user == actor), OPENED_SEQ)?;
        }
        let body = RoomEventBody::RoomCreated {
            room: Box::new(view.clone()),
        };
        let event = self.system(room, actor, &Opened::new(actor, &view), body)?;
        let told = RoomCreated {
            room_id: room,
            kind,
            title,
            created_by: actor,
            member_count: view.member_count,
            member_ids: view.members.iter().map(|member| member.user_id).collect(),
        };
        super::hooks::tell(
            self.connection,
            self.now,
            room,
            HookKind::RoomCreated,
            &told,
        )?;
        Ok(Ok(OpDone {
            reply: OpReply::Room {
                room: view,
                created: true,
            },
            events: vec![event],
        }))
    }

    fn created_before(
        &mut self,
        room: RoomId,
        actor: UserId,
        kind: RoomKind,
        same_body: bool,
    ) -> Result<OpOutcome, Failure> {
        let first_kind = self.head(room)?.map(|head| head.kind);
        // A pair has one room, whoever opens it, so a direct room's body does not matter.
        if first_kind != Some(kind) || (kind == RoomKind::Group && !same_body) {
            return Ok(refuse(
                ErrorCode::IdempotencyConflict,
                "this client_room_id was used for another room",
            ));
        }
        let view = if self.seat(room, actor)?.role.is_some() {
            self.finish()?;
            self.seen.refresh(self.connection)?;
            whole_room(self.connection, &self.seen, room)?
        } else {
            // Its creator, who is no member any more: told what they knew, and nothing newer.
            room_as_opened(self.connection, room)?
        };
        let Some(view) = view else {
            return Err(Failure::Data("a room is gone".to_owned()));
        };
        Ok(Ok(OpDone {
            reply: OpReply::Room {
                room: view,
                created: false,
            },
            events: Vec::new(),
        }))
    }

    pub(super) fn add_members(
        &mut self,
        room: RoomId,
        actor: UserId,
        users: &[UserId],
    ) -> Result<OpOutcome, Failure> {
        let Some(head) = self.head(room)?.copied() else {
            return Ok(forbidden());
        };
        let role = self.seat(room, actor)?.role;
        if !role.is_some_and(|role| access::may(role, head.kind, Action::AddMembers)) {
            return Ok(forbidden());
        }
        let mut joining = Vec::new();
        for user in users {
            if self.seat(room, *user)?.role.is_some() {
                continue;
            }
            let Some((name, room_count)) = self.user(*user)? else {
                return Ok(refuse(ErrorCode::NotFound, "no such user"));
            };
            joining.push((*user, name, room_count));
        }
        if head.member_count + joining.len() > limits::MEMBERS_MAX {
            return Ok(refuse(ErrorCode::TooLarge, "too many members"));
        }
        let full = |(_, _, room_count): &(_, _, usize)| *room_count >= limits::ROOMS_PER_USER_MAX;
        if joining.iter().any(full) {
            return Ok(refuse(ErrorCode::TooLarge, "a user is in too many rooms"));
        }
        let others: Vec<UserId> = joining.iter().map(|(user, ..)| *user).collect();
        if blocks::is_severed(self.connection, actor, &others)? {
            return Ok(forbidden());
        }
        let mut events = Vec::with_capacity(joining.len());
        for (user, name, _) in joining {
            let (seq, _) = self.next(room)?;
            self.join(room, user, Role::Member, seq)?;
            let joined = MemberJoined {
                user_id: user,
                name,
                role: Role::Member,
                actor_id: actor,
            };
            events.push(self.system(
                room,
                actor,
                &SystemEvent::MemberJoined(joined.clone()),
                RoomEventBody::MemberJoined(joined),
            )?);
        }
        Ok(Ok(changed(events)))
    }

    pub(super) fn remove_members(
        &mut self,
        room: RoomId,
        actor: UserId,
        users: &[UserId],
    ) -> Result<OpOutcome, Failure> {
        if users == [actor] {
            return self.leave(room, actor);
        }
        let Some(kind) = self.head(room)?.map(|head| head.kind) else {
            return Ok(forbidden());
        };
        let Some(own_role) = self.seat(room, actor)?.role else {
            return Ok(forbidden());
        };
        if !access::may(own_role, kind, Action::RemoveMembers) {
            return Ok(forbidden());
        }
        let mut leaving = Vec::new();
        for user in users.iter().filter(|user| **user != actor) {
            let Some(role) = self.seat(room, *user)?.role else {
                continue;
            };
            if !access::may_remove(own_role, role) {
                return Ok(forbidden());
            }
            leaving.push(*user);
        }
        let mut events = Vec::with_capacity(leaving.len());
        for user in leaving {
            events.push(self.part(room, user, actor)?);
        }
        // Oneself last: after it there are no rights left to remove others by.
        if users.contains(&actor) {
            events.push(self.part(room, actor, actor)?);
            events.extend(self.succeed(room, actor, Some(own_role))?);
        }
        Ok(Ok(changed(events)))
    }

    pub(super) fn leave(&mut self, room: RoomId, user: UserId) -> Result<OpOutcome, Failure> {
        let Some(kind) = self.head(room)?.map(|head| head.kind) else {
            return Ok(forbidden());
        };
        let seat = *self.seat(room, user)?;
        let Some(role) = seat.role else {
            return Ok(if seat.known && kind == RoomKind::Group {
                Ok(changed(Vec::new()))
            } else {
                forbidden()
            });
        };
        if !access::may(role, kind, Action::Leave) {
            return Ok(forbidden());
        }
        let mut events = vec![self.part(room, user, user)?];
        events.extend(self.succeed(room, user, seat.role)?);
        Ok(Ok(changed(events)))
    }

    /// Makes a user a member from this `seq` on.
    fn join(&mut self, room: RoomId, user: UserId, role: Role, seq: Seq) -> Result<(), Failure> {
        self.connection
            .prepare_cached(
                "INSERT INTO room_participants (room_id, user_id, role, joined_seq, joined_at)
                 VALUES (?1, ?2, ?3, ?4, ?5)
                 ON CONFLICT DO UPDATE SET role = excluded.role, joined_seq = excluded.joined_seq,
                     joined_at = excluded.joined_at, left_seq = NULL, left_at = NULL",
            )?
            .execute(params![
                room.0.as_bytes(),
                user.0.as_bytes(),
                role.name(),
                int(seq),
                int(self.now.0),
            ])?;
        self.rooms_changed(user, 1)?;
        marks::write(self.connection, room, user, seq)?;
        *self.seat(room, user)? = Seat {
            role: Some(role),
            known: true,
            read_seq: None,
        };
        if let Some(head) = self.head(room)? {
            head.member_count += 1;
            head.members_changed = true;
        }
        Ok(())
    }

    /// Ends a membership.
    fn part(&mut self, room: RoomId, user: UserId, actor: UserId) -> Result<RoomEvent, Failure> {
        let (seq, ts) = self.next(room)?;
        self.connection
            .prepare_cached(
                "UPDATE room_participants SET left_seq = ?3, left_at = ?4
                 WHERE room_id = ?1 AND user_id = ?2",
            )?
            .execute(params![
                room.0.as_bytes(),
                user.0.as_bytes(),
                int(seq),
                int(ts.0)
            ])?;
        self.rooms_changed(user, -1)?;
        self.seat(room, user)?.role = None;
        if let Some(head) = self.head(room)? {
            head.member_count = head.member_count.saturating_sub(1);
            head.members_changed = true;
        }
        let left = MemberLeft {
            user_id: user,
            actor_id: actor,
        };
        self.system(
            room,
            actor,
            &SystemEvent::MemberLeft(left.clone()),
            RoomEventBody::MemberLeft(left),
        )
    }

    /// Gives a group whose owner left a new one: the longest-serving admin, else member.
    fn succeed(
        &mut self,
        room: RoomId,
        left: UserId,
        left_role: Option<Role>,
    ) -> Result<Option<RoomEvent>, Failure> {
        if left_role != Some(Role::Owner) {
            return Ok(None);
        }
        match self.heir(room)? {
            Some(heir) => self.give_role(room, left, heir, Role::Owner).map(Some),
            None => Ok(None),
        }
    }

    /// Who would be the next owner.
    pub(super) fn heir(&self, room: RoomId) -> Result<Option<UserId>, Failure> {
        let mut statement = self.connection.prepare_cached(
            "SELECT user_id FROM room_participants
             WHERE room_id = ?1 AND left_seq IS NULL
             ORDER BY role = 'admin' DESC, joined_seq, user_id LIMIT 1",
        )?;
        let mut rows = statement.query([room.0.as_bytes()])?;
        rows.next()?.map(|row| user_id(row, 0)).transpose()
    }

    pub(super) fn set_role(
        &mut self,
        room: RoomId,
        actor: UserId,
        users: &[UserId],
        role: Role,
    ) -> Result<OpOutcome, Failure> {
        let Some(kind) = self.head(room)?.map(|head| head.kind) else {
            return Ok(forbidden());
        };
        let Some(own_role) = self.seat(room, actor)?.role else {
            return Ok(forbidden());
        };
        if !access::may(own_role, kind, Action::SetRole) {
            return Ok(forbidden());
        }
        let mut others = Vec::new();
        for user in users {
            match self.seat(room, *user)?.role {
                None => return Ok(Err(changes::no_member())),
                Some(old) if old != role => others.push((*user, old)),
                Some(_) => (),
            }
        }
        // An owner is made by another, never unmade.
        if others.iter().any(|(_, old)| *old == Role::Owner) {
            return Ok(forbidden());
        }
        let mut events = Vec::with_capacity(others.len() + 1);
        for (user, _) in others {
            events.push(self.give_role(room, actor, user, role)?);
        }
        if role == Role::Owner && !events.is_empty() {
            events.push(self.give_role(room, actor, actor, Role::Admin)?);
        }
        Ok(Ok(changed(events)))
    }

    pub(super) fn update_room(
        &mut self,
        room: RoomId,
        actor: UserId,
        [title, picture]: [Option<Option<&str>>; 2],
    ) -> Result<OpOutcome, Failure> {
        let Some(kind) = self.head(room)?.map(|head| head.kind) else {
            return Ok(forbidden());
        };
        let role = self.seat(room, actor)?.role;
        if !role.is_some_and(|role| access::may(role, kind, Action::UpdateRoom)) {
            return Ok(forbidden());
        }
        let (old_title, old_picture): (Option<String>, Option<String>) = self
            .connection
            .prepare_cached("SELECT title, picture FROM chat_rooms WHERE room_id = ?1")?
            .query_row([room.0.as_bytes()], |row| Ok((row.get(0)?, row.get(1)?)))?;
        let title = title.filter(|title| *title != old_title.as_deref());
        let picture = picture.filter(|picture| *picture != old_picture.as_deref());
        if title.is_none() && picture.is_none() {
            return Ok(Ok(changed(Vec::new())));
        }
        self.connection
            .prepare_cached("UPDATE chat_rooms SET title = ?2, picture = ?3 WHERE room_id = ?1")?
            .execute(params![
                room.0.as_bytes(),
                title.unwrap_or(old_title.as_deref()),
                picture.unwrap_or(old_picture.as_deref()),
            ])?;
        let owned = |it: Option<&str>| it.map(str::to_owned);
        let updated = RoomUpdated {
            title: title.map(owned),
            picture: picture.map(owned),
            actor_id: actor,
        };
        let event = self.system(
            room,
            actor,
            &SystemEvent::RoomUpdated(updated.clone()),
            RoomEventBody::RoomUpdated(updated),
        )?;
        Ok(Ok(changed(vec![event])))
    }

    fn give_role(
        &mut self,
        room: RoomId,
        actor: UserId,
        user: UserId,
        role: Role,
    ) -> Result<RoomEvent, Failure> {
        self.write_role(room, user, role)?;
        let role_changed = MemberRoleChanged {
            user_id: user,
            role,
            actor_id: actor,
        };
        self.system(
            room,
            actor,
            &SystemEvent::MemberRoleChanged(role_changed.clone()),
            RoomEventBody::MemberRoleChanged(role_changed),
        )
    }

    pub(super) fn write_role(
        &mut self,
        room: RoomId,
        user: UserId,
        role: Role,
    ) -> Result<(), Failure> {
        self.connection
            .prepare_cached(
                "UPDATE room_participants SET role = ?3 WHERE room_id = ?1 AND user_id = ?2",
            )?
            .execute(params![room.0.as_bytes(), user.0.as_bytes(), role.name()])?;
        self.seat(room, user)?.role = Some(role);
        Ok(())
    }

    fn rooms_changed(&self, user: UserId, by: i64) -> Result<(), Failure> {
        self.connection
            .prepare_cached(
                "UPDATE chat_users SET version = version + 1, room_count = room_count + ?2
                 WHERE user_id = ?1",
            )?
            .execute(params![user.0.as_bytes(), by])?;
        Ok(())
    }
}

/// Both members of a direct room are alike.
fn first_role(kind: RoomKind, is_creator: bool) -> Role {
    match kind {
        RoomKind::Group if is_creator => Role::Owner,
        RoomKind::Group | RoomKind::Direct => Role::Member,
    }
}

/// The same words whatever the reason: whether there is such a room is told to its members only.
fn forbidden() -> OpOutcome {
    refuse(ErrorCode::Forbidden, "not allowed in this room")
}

fn changed(events: Vec<RoomEvent>) -> OpDone {
    OpDone {
        reply: OpReply::Changed(events.last().map(|event| event.seq)),
        events,
    }
}
