//! Changes of one message: edit, delete, reactions, pins, reports.
//!
//! Invariants: what changes a message is one row of `room_events`, whose `seq` becomes the message's
//! `changed_seq`; `messages.reactions` counts the rows of `message_reactions`; a deleted message has
//! neither text nor mentions, reactions or pin, but keeps its hash.

use super::admin;
use super::row::{Failure, int, message, message_columns};
use super::search_index::overwriting;
use super::write::Batch;
use crate::chat::access::{self, Action};
use crate::chat::port::admin::ActOutcome;
use crate::chat::port::{MessageChange, OpOutcome, Refusal};
use crate::limits;
use crate::protocol::admin::ReportKey;
use crate::protocol::hooks::{HookKind, MessageReported};
use crate::protocol::reply::MessageChanged;
use crate::protocol::view::{Message, MessageKind};
use crate::protocol::{RoomId, Seq, UserId};
use crate::store::changes::{self, KeptChange, KeptReaction, event_name};
use crate::store::common::to_json;
use crate::store::files::to_keep;
use rusqlite::params;
use std::collections::BTreeMap;

/// What is to be done about a change that may be made.
enum Decision {
    Nothing,
    Refuse(Refusal),
    /// Makes it; with what its event keeps beside the columns.
    Make(Option<KeptReaction>),
}

impl Batch<'_> {
    pub(super) fn change_message(
        &mut self,
        room: RoomId,
        actor: UserId,
        seq: Seq,
        change: &MessageChange,
    ) -> Result<OpOutcome, Failure> {
        let Some((kind, severed)) = self.head(room)?.map(|head| (head.kind, head.severed)) else {
            return Ok(Err(changes::not_a_member()));
        };
        let service = match change {
            MessageChange::Moderate(entry) => Some(&**entry),
            _ => None,
        };
        let role = self.seat(room, actor)?.role;
        if role.is_none() && service.is_none() {
            return Ok(Err(changes::not_a_member()));
        }
        let Some(old) = self.message(room, seq)? else {
            return Ok(Err(changes::no_message()));
        };
        let action = Action::of(change, old.sender_id == actor);
        let may = service.is_some() || role.is_some_and(|role| access::may(role, kind, action));
        if old.kind == MessageKind::System || !may {
            return Ok(Err(changes::not_allowed()));
        }
        let decision = self.decide(room, actor, &old, change)?;
        if let Some(entry) = service {
            let outcome = match decision {
                Decision::Make(_) => ActOutcome::Done,
                Decision::Nothing | Decision::Refuse(_) => ActOutcome::Unchanged,
            };
            if admin::note(self.connection, self.now, entry, outcome)? {
                admin::settle_reports(self.connection, self.now, room, seq, entry)?;
            }
        }
        let kept = match decision {
            Decision::Refuse(refusal) => return Ok(Err(refusal)),
            Decision::Nothing => {
                let unchanged = changed(room, &old, false);
                return Ok(Ok(changes::done(unchanged, None)));
            }
            Decision::Make(_) if severed && !access::may_change_severed(change) => {
                return Ok(Err(changes::not_allowed()));
            }
            Decision::Make(kept) => kept,
        };
        let Some(name) = event_name(change) else {
            self.report(room, actor, &old)?;
            return Ok(Ok(changes::done(changed(room, &old, true), None)));
        };
        let data = match kept {
            Some(kept) => Some(to_json(&kept).map_err(Failure::Data)?),
            None => None,
        };
        self.overwrite(room)?;
        let (event_seq, ts) = self.next(room)?;
        self.connection
            .prepare_cached(
                "INSERT INTO room_events (room_id, seq, ts, type, message_seq, actor_id, data)
                 VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)",
            )?
            .execute(params![
                room.0.as_bytes(),
                int(event_seq),
                int(ts.0),
                name,
                int(seq),
                actor.0.as_bytes(),
                data,
            ])?;
        let mut new = old;
        new.changed_seq = event_seq;
        match change {
            MessageChange::Edit { text, .. } => {
                new.text = Some(text.clone());
                new.revision += 1;
                new.edited_at = Some(ts);
            }
            MessageChange::Delete { .. } | MessageChange::Moderate(_) => {
                new.text = None;
                new.mentions = Vec::new();
                new.reactions = BTreeMap::new();
                self.drop_files(&new.attachments)?;
                new.attachments = Vec::new();
                new.deleted_at = Some(ts);
                for sql in [
                    "DELETE FROM message_reactions WHERE room_id = ?1 AND message_seq = ?2",
                    "DELETE FROM room_pins WHERE room_id = ?1 AND message_seq = ?2",
                ] {
                    self.connection
                        .prepare_cached(sql)?
                        .execute(params![room.0.as_bytes(), int(seq)])?;
                }
            }
            MessageChange::AddReaction { emoji } | MessageChange::RemoveReaction { emoji } => {
                self.react(room, actor, &mut new, change, emoji)?;
            }
            MessageChange::Pin => {
                self.connection
                    .prepare_cached(
                        "INSERT INTO room_pins (room_id, message_seq, pinned_seq, pinned_by,
                             pinned_at)
                         VALUES (?1, ?2, ?3, ?4, ?5)",
                    )?
                    .execute(params![
                        room.0.as_bytes(),
                        int(seq),
                        int(event_seq),
                        actor.0.as_bytes(),
                        int(ts.0)
                    ])?;
            }
            MessageChange::Unpin => {
                self.connection
                    .prepare_cached(
                        "DELETE FROM room_pins WHERE room_id = ?1 AND message_seq = ?2",
                    )?
                    .execute(params![room.0.as_bytes(), int(seq)])?;
            }
            MessageChange::Report => (),
        }
        match change {
            MessageChange::Edit { .. }
            | MessageChange::Delete { .. }
            | MessageChange::Moderate(_) => {
                overwriting(self.connection, || self.write_message(room, &new))?;
            }
            MessageChange::AddReaction { .. }
            | MessageChange::RemoveReaction { .. }
            | MessageChange::Pin
            | MessageChange::Unpin
            | MessageChange::Report => self.write_message(room, &new)?,
        }
        self.give(room, event_seq, ts);
        let changed = changed(room, &new, true);
        let event = KeptChange {
            seq: event_seq,
            ts,
            name,
            message_seq: seq,
            actor,
            data: data.as_deref(),
            message: Some(new),
        };
        let event = event.event(room).map_err(Failure::Data)?;
        Ok(Ok(changes::done(changed, Some(event))))
    }

    /// Looks, and changes nothing.
    fn decide(
        &self,
        room: RoomId,
        actor: UserId,
        old: &Message,
        change: &MessageChange,
    ) -> Result<Decision, Failure> {
        let is_deleted = old.deleted_at.is_some();
        let other_revision =
            |expected: &Option<u32>| expected.is_some_and(|expected| expected != old.revision);
        let count = |emoji: &str| {
            old.reactions
                .get(emoji)
                .map_or(0, |reaction| reaction.count)
        };
        Ok(match change {
            MessageChange::Edit { .. }
            | MessageChange::AddReaction { .. }
            | MessageChange::Pin
            | MessageChange::Report
                if is_deleted =>
            {
                Decision::Refuse(changes::gone())
            }
            MessageChange::Edit { text, .. } if old.text.as_ref() == Some(text) => {
                Decision::Nothing
            }
            MessageChange::Delete { .. } | MessageChange::Moderate(_) if is_deleted => {
                Decision::Nothing
            }
            MessageChange::Edit {
                expected_revision, ..
            }
            | MessageChange::Delete { expected_revision }
                if other_revision(expected_revision) =>
            {
                Decision::Refuse(changes::revision_conflict())
            }
            MessageChange::Edit { .. }
            | MessageChange::Delete { .. }
            | MessageChange::Moderate(_) => Decision::Make(None),
            MessageChange::AddReaction { emoji } => {
                let own = self.own_reactions(room, actor, old.seq)?;
                let is_new = !old.reactions.contains_key(emoji);
                if own.contains(emoji) {
                    Decision::Nothing
                } else if own.len() >= limits::REACTIONS_PER_USER_MAX
                    || is_new && old.reactions.len() >= limits::REACTION_EMOJIS_MAX
                {
                    Decision::Refuse(changes::too_many(change))
                } else {
                    Decision::Make(Some(KeptReaction {
                        emoji: emoji.clone(),
                        added: true,
                        count: count(emoji) + 1,
                    }))
                }
            }
            MessageChange::RemoveReaction { emoji } => {
                if self.own_reactions(room, actor, old.seq)?.contains(emoji) {
                    Decision::Make(Some(KeptReaction {
                        emoji: emoji.clone(),
                        added: false,
                        count: count(emoji).saturating_sub(1),
                    }))
                } else {
                    Decision::Nothing
                }
            }
            MessageChange::Pin => {
                if self.is_pinned(room, old.seq)? {
                    Decision::Nothing
                } else if self.pins(room)? >= limits::PINS_MAX {
                    Decision::Refuse(changes::too_many(change))
                } else {
                    Decision::Make(None)
                }
            }
            MessageChange::Unpin if !self.is_pinned(room, old.seq)? => Decision::Nothing,
            MessageChange::Unpin => Decision::Make(None),
            MessageChange::Report if self.is_reported(room, actor, old.seq)? => Decision::Nothing,
            MessageChange::Report => Decision::Make(None),
        })
    }

    /// Adds a reaction or takes it away, of which it was decided that it changes something.
    fn react(
        &self,
        room: RoomId,
        actor: UserId,
        message: &mut Message,
        change: &MessageChange,
        emoji: &str,
    ) -> Result<(), Failure> {
        let row = params![
            room.0.as_bytes(),
            int(message.seq),
            actor.0.as_bytes(),
            emoji
        ];
        let reaction = message.reactions.entry(emoji.to_owned());
        if matches!(change, MessageChange::AddReaction { .. }) {
            self.connection
                .prepare_cached(
                    "INSERT INTO message_reactions (room_id, message_seq, user_id, emoji)
                     VALUES (?1, ?2, ?3, ?4)",
                )?
                .execute(row)?;
            reaction.or_default().count += 1;
        } else {
            self.connection
                .prepare_cached(
                    "DELETE FROM message_reactions
                     WHERE room_id = ?1 AND message_seq = ?2 AND user_id = ?3 AND emoji = ?4",
                )?
                .execute(row)?;
            let reaction = reaction.or_default();
            reaction.count = reaction.count.saturating_sub(1);
            message.reactions.retain(|_, reaction| reaction.count > 0);
        }
        Ok(())
    }

    fn message(&self, room: RoomId, seq: Seq) -> Result<Option<Message>, Failure> {
        let mut statement = self.connection.prepare_cached(concat!(
            "SELECT ",
            message_columns!(),
            " FROM messages WHERE room_id = ?1 AND seq = ?2"
        ))?;
        let mut rows = statement.query(params![room.0.as_bytes(), int(seq)])?;
        rows.next()?.map(message).transpose()
    }

    /// Writes what can change of a message.
    fn write_message(&self, room: RoomId, message: &Message) -> Result<(), Failure> {
        let counts: BTreeMap<&str, u32> = message
            .reactions
            .iter()
            .map(|(emoji, reaction)| (emoji.as_str(), reaction.count))
            .collect();
        let reactions = match counts.is_empty() {
            true => None,
            false => Some(to_json(&counts).map_err(Failure::Data)?),
        };
        self.connection
            .prepare_cached(
                "UPDATE messages SET changed_seq = ?3, revision = ?4, edited_at = ?5,
                     deleted_at = ?6, text = ?7, reactions = ?8,
                     mentions = iif(?6 IS NULL, mentions, NULL), attachments = ?9
                 WHERE room_id = ?1 AND seq = ?2",
            )?
            .execute(params![
                room.0.as_bytes(),
                int(message.seq),
                int(message.changed_seq),
                message.revision,
                message.edited_at.map(|at| int(at.0)),
                message.deleted_at.map(|at| int(at.0)),
                message.text,
                reactions,
                to_keep(message.kind, &message.attachments).map_err(Failure::Data)?,
            ])?;
        Ok(())
    }

    fn own_reactions(&self, room: RoomId, user: UserId, seq: Seq) -> Result<Vec<String>, Failure> {
        let mut statement = self.connection.prepare_cached(
            "SELECT emoji FROM message_reactions
             WHERE room_id = ?1 AND message_seq = ?2 AND user_id = ?3",
        )?;
        let key = params![room.0.as_bytes(), int(seq), user.0.as_bytes()];
        let rows = statement.query_map(key, |row| row.get(0))?;
        Ok(rows.collect::<Result<_, _>>()?)
    }

    fn is_pinned(&self, room: RoomId, seq: Seq) -> Result<bool, Failure> {
        Ok(self
            .connection
            .prepare_cached("SELECT 1 FROM room_pins WHERE room_id = ?1 AND message_seq = ?2")?
            .exists(params![room.0.as_bytes(), int(seq)])?)
    }

    fn pins(&self, room: RoomId) -> Result<usize, Failure> {
        let count: u32 = self
            .connection
            .prepare_cached("SELECT count(*) FROM room_pins WHERE room_id = ?1")?
            .query_row([room.0.as_bytes()], |row| row.get(0))?;
        Ok(count as usize)
    }

    fn is_reported(&self, room: RoomId, user: UserId, seq: Seq) -> Result<bool, Failure> {
        Ok(self
            .connection
            .prepare_cached(
                "SELECT 1 FROM message_reports
                 WHERE room_id = ?1 AND message_seq = ?2 AND reporter_id = ?3",
            )?
            .exists(params![room.0.as_bytes(), int(seq), user.0.as_bytes()])?)
    }

    fn report(&self, room: RoomId, user: UserId, message: &Message) -> Result<(), Failure> {
        self.connection
            .prepare_cached(
                "INSERT INTO message_reports (room_id, message_seq, reporter_id, revision,
                     created_at)
                 VALUES (?1, ?2, ?3, ?4, ?5)",
            )?
            .execute(params![
                room.0.as_bytes(),
                int(message.seq),
                user.0.as_bytes(),
                message.revision,
                int(self.now.0),
            ])?;
        let report = ReportKey {
            room,
            message_seq: message.seq,
            reporter: user,
        };
        let told = MessageReported {
            report_id: report.to_id(),
            room_id: room,
            message_seq: message.seq,
            revision: message.revision,
            reporter_id: user,
            sender_id: message.sender_id,
        };
        let kind = HookKind::MessageReported;
        super::hooks::tell(self.connection, self.now, room, kind, &told)
    }
}

fn changed(room_id: RoomId, message: &Message, changed: bool) -> MessageChanged {
    MessageChanged {
        room_id,
        message_seq: message.seq,
        changed,
        seq: message.changed_seq,
        revision: message.revision,
    }
}
