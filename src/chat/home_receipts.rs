//! How the home of rooms takes receipts, has them written, and tells those who listen, and other nodes.
//!
//! Under load they are taken and written all the same, and told when there is less to do: only the newest.

use super::bus::{Context, GivenReceipts, MeshMessage, ToldReceipt, ToldReceipts};
use super::home::{Call, Home};
use super::load::Load;
use super::port::{StoreAnswer, StoreCall, StoreError};
use super::receipts::{Device, Mark, Telling};
use super::{Peers, home_relay};
use crate::limits;
use crate::protocol::event::RoomNotice;
use crate::protocol::relay::{RelayMessage, RelayedReceipt};
use crate::protocol::view::Watermark;
use crate::protocol::{RoomId, UserId, websocket};

impl Home {
    /// A connection of this node says how far it, or its user, is in rooms.
    pub fn receipts(&mut self, given: &GivenReceipts, ctx: &mut Context<'_>) {
        for (id, seq) in &given.rooms {
            let room = self.index.get(id).and_then(|index| self.rooms.get(*index));
            let is_member = |members: &[UserId]| members.binary_search(&given.user).is_ok();
            if room.is_none_or(|room| !is_member(&room.members)) {
                continue;
            }
            ctx.stats.receipts_taken += 1;
            let mark = Mark {
                read_seq: if given.is_read { *seq } else { 0 },
                delivered_seq: *seq,
            };
            self.receipts.take(*id, given.user, mark, given.by);
        }
        if self.receipts.waiting() >= limits::RECEIPTS_BATCH_MAX {
            self.write_receipts(false, ctx);
        }
    }

    /// A member changed by this device what the room is to them alone.
    pub fn own_changed(&mut self, room: RoomId, user: UserId, by: Device, ctx: &mut Context<'_>) {
        let telling = Telling {
            user,
            mark: Mark::default(),
            is_own_changed: true,
            by: Some(by),
            is_ours: true,
        };
        self.receipts.note(room, telling);
        self.tell_receipts(room, ctx);
    }

    /// Another node tells of receipts that it has written.
    pub(super) fn heard_receipts(&mut self, room: RoomId, receipts: &[RelayedReceipt]) {
        if !self.index.contains_key(&room) {
            return;
        }
        for receipt in receipts {
            let telling = Telling {
                user: receipt.user,
                mark: Mark {
                    read_seq: receipt.read_seq,
                    delivered_seq: receipt.delivered_seq,
                },
                is_own_changed: receipt.is_own_changed,
                by: None,
                is_ours: false,
            };
            self.receipts.note(room, telling);
        }
    }

    /// Time has passed.
    pub(super) fn tick_receipts(&mut self, ctx: &mut Context<'_>) {
        self.write_receipts(false, ctx);
        if ctx.bus.load >= Load::NoReceipts {
            return;
        }
        for room in self.receipts.to_tell(ctx.now_ms()) {
            self.tell_receipts(room, ctx);
        }
    }

    /// The node ends: what was taken is written now. Whether nothing is left of it.
    pub fn end_receipts(&mut self, ctx: &mut Context<'_>) -> bool {
        self.write_receipts(true, ctx);
        self.receipts.is_idle()
    }

    fn write_receipts(&mut self, is_last: bool, ctx: &mut Context<'_>) {
        if !ctx.may_read() {
            return;
        }
        if let Some(batch) = self.receipts.batch(ctx.now_ms(), is_last) {
            let ticket = ctx.call(StoreCall::WriteReceipts(batch));
            self.calls.insert(ticket, Call::Receipts);
        }
    }

    /// The store answered.
    pub(super) fn receipts_written(
        &mut self,
        result: Result<StoreAnswer, StoreError>,
        ctx: &mut Context<'_>,
    ) {
        let outcomes = match result {
            Ok(StoreAnswer::WriteReceipts(outcomes)) => Some(outcomes),
            _ => None,
        };
        ctx.stats.receipts_written += self.receipts.answered(outcomes) as u64;
        self.tick_receipts(ctx);
    }

    /// Tells the shards that listen, and other nodes; later, and then of what is newest, while one of the
    /// shards takes no more.
    fn tell_receipts(&mut self, id: RoomId, ctx: &mut Context<'_>) {
        let room = self.index.get(&id).and_then(|index| self.rooms.get(*index));
        let listeners = room.map_or(&[][..], |room| &room.listeners);
        if !listeners
            .iter()
            .all(|listener| ctx.takes_events(listener.shard))
        {
            return;
        }
        let is_shown = room.is_none_or(|room| room.members.len() <= limits::RECEIPT_MEMBERS_MAX);
        let telling = self.receipts.tell(id, is_shown, ctx.now_ms());
        if room.is_none() {
            self.receipts.forget(id);
        }
        relay(id, &telling, ctx);
        let told: Vec<ToldReceipt> = telling
            .iter()
            .map(|one| told(id, one, is_shown))
            .filter(|told| told.frame.is_some() || told.is_own_changed)
            .collect();
        if told.is_empty() {
            return;
        }
        for listener in listeners {
            let receipts = ToldReceipts {
                room: id,
                told: told.clone(),
            };
            ctx.tell(
                listener.shard,
                MeshMessage::ToldReceipts(Box::new(receipts)),
            );
        }
    }
}

/// As the shards that listen are told.
fn told(room_id: RoomId, telling: &Telling, is_shown: bool) -> ToldReceipt {
    let Telling {
        user,
        mark,
        is_own_changed,
        by,
        ..
    } = *telling;
    let mark = Watermark {
        user_id: user,
        read_seq: mark.read_seq,
        delivered_seq: mark.delivered_seq,
    };
    let is_shown = is_shown && telling.mark != Mark::default();
    let frame = is_shown.then(|| {
        let data = mark;
        let notice = RoomNotice::ReceiptUpdated { room_id, data };
        websocket::encode_text(&notice.to_json())
    });
    ToldReceipt {
        mark,
        frame,
        is_own_changed,
        by,
    }
}

/// Tells other nodes of what was learned here.
fn relay(room: RoomId, telling: &[Telling], ctx: &mut Context<'_>) {
    if ctx.config.peers != Peers::Relay {
        return;
    }
    let relayed = |one: &Telling| RelayedReceipt {
        user: one.user,
        read_seq: one.mark.read_seq,
        delivered_seq: one.mark.delivered_seq,
        is_own_changed: one.is_own_changed,
    };
    let ours = telling.iter().filter(|one| one.is_ours);
    let ours: Vec<RelayedReceipt> = ours.map(relayed).collect();
    for receipts in ours.chunks(limits::RECEIPTS_PER_MESSAGE) {
        let message = RelayMessage::Receipts(room, receipts.to_vec());
        home_relay::tell(room.bucket(), &message, ctx);
    }
}
