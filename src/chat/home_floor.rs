//! What is no longer kept of a home's rooms. The store drops what is older than a room keeps it, from the room's
//! first event on, and a home learns of it when it opens the room, with every page that it reads, and when it compares
//! the room with the store.
//!
//! Invariants: a floor only rises; nothing at or below it is in a window, nor what a dropped message says since an
//! edit; who is owed an event that is no longer there is told so, and nothing in its place.

use super::bus::{Context, MeshMessage};
use super::home::Home;
use super::window_page::tells_of_dropped;
use crate::protocol::{RoomId, Seq};

impl Home {
    /// The store says how far rooms are dropped.
    pub(super) fn floors_are(&mut self, floors: &[(RoomId, Seq)], ctx: &mut Context<'_>) {
        for (room, floor) in floors {
            let Some(index) = self.index.get(room).copied() else {
                continue;
            };
            self.raise_floor(index, *floor);
            self.expire(index, ctx);
        }
    }

    /// Events up to this one are no longer kept.
    pub(super) fn raise_floor(&mut self, index: usize, floor: Seq) {
        let room = &mut self.rooms[index];
        if floor <= room.floor {
            return;
        }
        room.floor = floor;
        if tells_of_dropped(&room.window, floor) {
            // The store tells it again without.
            self.window_bytes -= room.window.bytes();
            room.window.clear();
        }
    }

    /// Tells those who are owed what is no longer kept. That takes a node that was without the store for as long as
    /// the room keeps its messages.
    pub(super) fn expire(&mut self, index: usize, ctx: &mut Context<'_>) {
        let room = &mut self.rooms[index];
        if !room.open {
            return;
        }
        let (id, floor) = (room.id, room.floor);
        let is_behind = room.gate.released() < floor;
        if is_behind {
            ctx.stats.anomalies += 1;
            room.gate.open(floor);
        }
        let listeners = std::mem::take(&mut room.listeners);
        for listener in listeners {
            match listener.cursor > floor {
                true => room.listeners.push(listener),
                false => ctx.tell(listener.shard, MeshMessage::Expired(id)),
            }
        }
        if is_behind {
            self.release(index, ctx);
            self.answer_waiting(index, ctx);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::bus::{Bus, Local, Stretch};
    use super::super::gate::Passed;
    use super::super::port::{EventsPage, OpenedRoom, StoreAnswer};
    use super::super::stats::Stats;
    use super::super::{ConnId, CoreConfig, Now};
    use super::*;
    use crate::protocol::event::{EncodedEvent, RoomEvent, RoomEventBody};
    use crate::protocol::view::{Message, MessageKind, Role, RoomKind};
    use crate::protocol::{Epoch, UnixMs, UserId};
    use std::collections::BTreeMap;
    use uuid::Uuid;

    const ROOM: RoomId = RoomId(Uuid::from_u128(7));
    const AUTHOR: UserId = UserId(Uuid::from_u128(1));

    fn message(seq: Seq) -> Box<Message> {
        Box::new(Message {
            seq,
            sender_id: AUTHOR,
            client_msg_id: None,
            kind: MessageKind::Text,
            text: Some("old".to_owned()),
            event: None,
            attachments: Vec::new(),
            reply_to_seq: None,
            mentions: Vec::new(),
            reactions: BTreeMap::new(),
            changed_seq: seq,
            revision: 1,
            edited_at: None,
            deleted_at: None,
            created_at: UnixMs(1),
        })
    }

    fn event(seq: Seq, body: RoomEventBody) -> RoomEvent {
        RoomEvent {
            room_id: ROOM,
            seq,
            ts: UnixMs(1),
            body,
        }
    }

    fn created(seq: Seq) -> RoomEvent {
        let body = RoomEventBody::MessageCreated {
            message_seq: seq,
            message: message(seq),
        };
        event(seq, body)
    }

    fn edited(seq: Seq, of: Seq) -> RoomEvent {
        let body = RoomEventBody::MessageUpdated {
            message_seq: of,
            message: message(of),
        };
        event(seq, body)
    }

    /// A home with the room open at `last_seq`, in a context.
    fn with_home(last_seq: Seq, floor: Seq, test: impl FnOnce(&mut Home, usize, &mut Context<'_>)) {
        let config = CoreConfig::new("test", 1, Epoch(1));
        let (mut bus, mut stats, mut effects) = (Bus::new(1, 1), Stats::default(), Vec::new());
        let mut ctx = Context {
            now: Now::default(),
            config: &config,
            shard: 0,
            bus: &mut bus,
            stats: &mut stats,
            effects: &mut effects,
        };
        let mut home = Home::new(1);
        let index = home.room_at(ROOM, &mut ctx);
        let opened = OpenedRoom {
            last_seq,
            kind: RoomKind::Group,
            members: vec![(AUTHOR, Role::Owner)],
            severed: false,
            floor,
        };
        home.opened(ROOM, Some(opened), &mut ctx);
        test(&mut home, index, &mut ctx);
    }

    #[test]
    fn a_window_is_given_up_exactly_when_it_tells_of_what_is_dropped() {
        for (floor, is_kept) in [(3, true), (4, true), (5, false), (11, false)] {
            with_home(10, 3, |home, index, ctx| {
                for event in [created(11), edited(12, 5), created(13)] {
                    home.offer(index, EncodedEvent::of(&event), Passed::default(), ctx);
                }
                assert_eq!(home.rooms[index].window.first(), Some(11));
                home.floors_are(&[(ROOM, floor)], ctx);
                let room = &home.rooms[index];
                assert_eq!(room.floor, floor);
                assert_eq!(room.window.holds(13), is_kept, "{floor}");
                assert_eq!(home.window_bytes, room.window.bytes());
            });
        }
    }

    #[test]
    fn a_page_that_was_read_before_the_drop_fills_no_window() {
        with_home(2, 0, |home, index, ctx| {
            home.floors_are(&[(ROOM, 1)], ctx);
            for (floor, is_filled) in [(0, false), (1, true)] {
                let page = EventsPage {
                    events: vec![created(2)],
                    last_seq: 2,
                    floor,
                };
                home.filled(ROOM, Some(page), ctx);
                assert_eq!(home.rooms[index].window.holds(2), is_filled);
            }
        });
    }

    #[test]
    fn a_replay_of_what_was_dropped_is_told_so_by_whoever_learns_of_it_first() {
        let conn = ConnId {
            index: 3,
            generation: 0,
        };
        let is_expired = |ctx: &mut Context<'_>| {
            let told = ctx.bus.local.pop_front();
            matches!(
                told,
                Some(Local::Message(MeshMessage::Pulled {
                    frames: Stretch::Expired(_),
                    ..
                }))
            )
        };
        with_home(10, 5, |home, index, ctx| {
            home.rooms[index].listen(0);
            home.pull(0, conn, ROOM, 4, ctx);
            assert!(is_expired(ctx));
            // From the floor on it is there, unless the store says otherwise by then.
            for (floor, expired) in [(5, false), (6, true)] {
                home.pull(0, conn, ROOM, 5, ctx);
                let ticket = home
                    .calls
                    .keys()
                    .copied()
                    .max()
                    .expect("the store is asked");
                let page = EventsPage {
                    events: (floor + 1..=10).map(created).collect(),
                    last_seq: 10,
                    floor,
                };
                home.answered(ticket, Ok(StoreAnswer::Events(page)), ctx);
                assert_eq!(is_expired(ctx), expired);
            }
        });
    }

    #[test]
    fn who_is_owed_what_was_dropped_is_told_and_the_gate_goes_on_above_it() {
        with_home(2, 0, |home, index, ctx| {
            home.rooms[index].listen(0);
            let page = EventsPage {
                events: vec![created(9)],
                last_seq: 9,
                floor: 8,
            };
            home.fetched(ROOM, page, ctx);
            assert_eq!(home.rooms[index].gate.released(), 9);
            assert!(home.rooms[index].listeners.is_empty());
            let told = ctx.bus.local.pop_front();
            assert!(
                matches!(told, Some(Local::Message(MeshMessage::Expired(ROOM)))),
                "{told:?}"
            );
        });
    }
}
