//! The windows of a home's rooms: who replays out of them, what fills them again, and which are given up.
//!
//! Invariants: a replay never goes beyond what its shard was delivered; all windows together are bounded.

use super::bus::{Context, MeshMessage, Packed, PageWanted, Stretch};
use super::home::{Call, Home, encode};
use super::port::{EventsPage, EventsRead, StoreCall};
use super::{ConnId, ShardIx, window_page};
use crate::limits;
use crate::protocol::{RoomId, Seq};

impl Home {
    /// The next stretch of a replay.
    pub fn pull(
        &mut self,
        shard: ShardIx,
        conn: ConnId,
        room_id: RoomId,
        after: Seq,
        ctx: &mut Context<'_>,
    ) {
        let pulled = |frames| MeshMessage::Pulled {
            conn,
            room: room_id,
            frames,
        };
        let Some(room) = self
            .index
            .get(&room_id)
            .and_then(|index| self.rooms.get_mut(*index))
        else {
            return ctx.tell(shard, pulled(Stretch::Later));
        };
        // Never beyond what the shard was delivered, or the connection would hear it twice.
        let Some(listener) = room
            .listeners
            .iter()
            .find(|listener| listener.shard == shard)
        else {
            return ctx.tell(shard, pulled(Stretch::Later));
        };
        let to = listener.cursor - 1;
        if after >= to {
            return ctx.tell(shard, pulled(Stretch::Frames(Vec::new())));
        }
        if after < room.floor {
            return ctx.tell(shard, pulled(Stretch::Expired(room.floor)));
        }
        if room.window.covers(after) {
            room.touched = true;
            let mut bytes = 0;
            let frames = room
                .window
                .after(after)
                .take_while(|(seq, frame)| {
                    bytes += frame.len();
                    *seq <= to && (bytes <= ctx.config.replay_pull_bytes() || bytes == frame.len())
                })
                .map(|(seq, frame)| (seq, Packed::of(frame)))
                .collect();
            return ctx.tell(shard, pulled(Stretch::Frames(frames)));
        }
        if self.fetches >= limits::FETCHES_MAX {
            return ctx.tell(shard, pulled(Stretch::Later));
        }
        self.fetches += 1;
        let ticket = ctx.call(StoreCall::Events(EventsRead {
            room: room_id,
            after,
            to,
            events_max: limits::REPLAY_EVENTS_MAX,
            bytes_max: ctx.config.replay_pull_bytes(),
            newest: false,
        }));
        self.calls.insert(
            ticket,
            Call::Pull {
                shard,
                conn,
                room: room_id,
                after,
            },
        );
    }

    /// A member reads a page while the store is away.
    pub fn page(&mut self, shard: ShardIx, wanted: PageWanted, ctx: &mut Context<'_>) {
        let PageWanted { request, read, .. } = &wanted;
        let room = self.room_mut(read.room).filter(|room| room.open);
        let json = room.and_then(|room| {
            room.members.binary_search(&read.user).ok()?;
            room.touched = true;
            let window = window_page::Whole {
                window: &room.window,
                released: room.gate.released(),
                floor: room.floor,
            };
            window_page::page(&window, *request, read)
        });
        ctx.tell(shard, MeshMessage::Paged(wanted, json));
    }

    /// Reads what stands before the window, for those who resume.
    pub(super) fn fill(&mut self, index: usize, ctx: &mut Context<'_>) {
        let room = &mut self.rooms[index];
        if room.filling || self.fetches >= limits::FETCHES_MAX {
            return;
        }
        room.filling = true;
        self.fetches += 1;
        let released = room.gate.released();
        let ticket = ctx.call(StoreCall::Events(EventsRead {
            room: room.id,
            after: released.saturating_sub(limits::REPLAY_EVENTS_MAX as Seq),
            to: released,
            events_max: limits::REPLAY_EVENTS_MAX,
            bytes_max: limits::REPLAY_BYTES_MAX,
            newest: true,
        }));
        self.calls.insert(ticket, Call::Fill(room.id));
    }

    pub(super) fn filled(&mut self, room: RoomId, page: Option<EventsPage>, ctx: &mut Context<'_>) {
        let Some(index) = self.index.get(&room).copied() else {
            return;
        };
        let room = &mut self.rooms[index];
        room.filling = false;
        let Some(page) = page.filter(|page| page.last_seq >= room.erased) else {
            return;
        };
        if page.floor < room.floor {
            // It was read before some of it was dropped.
            return self.answer_waiting(index, ctx);
        }
        self.raise_floor(index, page.floor);
        let room = &mut self.rooms[index];
        room.touched = true;
        let bytes_before = room.window.bytes();
        let last = page.events.last().map_or(0, |event| event.seq);
        if room.window.is_empty() && last == room.gate.released() {
            for event in &page.events {
                room.window.push(event.seq, encode(event));
            }
        } else {
            for event in page.events.iter().rev() {
                if !room.window.holds(event.seq)
                    && !room.window.push_front(event.seq, encode(event))
                {
                    break;
                }
            }
        }
        self.window_bytes = self.window_bytes + room.window.bytes() - bytes_before;
        for waiting in &mut room.waiting {
            waiting.filled = true;
        }
        self.answer_waiting(index, ctx);
        self.bound_windows(ctx);
    }

    /// Gives up windows that were not looked at for a while, when all of them are too much (the
    /// clock algorithm).
    pub(super) fn bound_windows(&mut self, ctx: &Context<'_>) {
        let mut steps = 2 * self.rooms.capacity();
        while self.window_bytes > ctx.config.windows_bytes_max && steps > 0 {
            steps -= 1;
            self.clock_hand = (self.clock_hand + 1) % self.rooms.capacity().max(1);
            let Some(room) = self.rooms.get_mut(self.clock_hand) else {
                continue;
            };
            if room.touched {
                room.touched = false;
            } else {
                self.window_bytes -= room.window.bytes();
                room.window.clear();
            }
        }
    }
}
