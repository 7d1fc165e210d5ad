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
        let is_shown = room
            .is_none_or(|room| room.members.len() <= limits::RECEIPT_MEMBERS_MAX && !room.severed);
        let telling = self.receipts.tell(id, is_shown, ctx.now_ms());
        if room.is_none() {
            self.receipts.forget(id);
        }
        relay(id, &telling, is_shown, ctx);
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
fn relay(room: RoomId, telling: &[Telling], is_shown: bool, ctx: &mut Context<'_>) {
    if ctx.config.peers != Peers::Relay {
        return;
    }
    let relayed = |one: &Telling| RelayedReceipt {
        user: one.user,
        read_seq: one.mark.read_seq,
        delivered_seq: one.mark.delivered_seq,
        is_own_changed: one.is_own_changed,
    };
    let is_wanted = |one: &&Telling| one.is_ours && (is_shown || one.is_own_changed);
    let ours = telling.iter().filter(is_wanted);
    let ours: Vec<RelayedReceipt> = ours.map(relayed).collect();
    for receipts in ours.chunks(limits::RECEIPTS_PER_MESSAGE) {
        let message = RelayMessage::Receipts(room, receipts.to_vec());
        home_relay::tell(room.bucket(), &message, ctx);
    }
}

#[cfg(test)]
mod tests {
    use super::super::bus::{Bus, Local, Subscribe, SubscribeRoom};
    use super::super::port::{OpenedRoom, ReceiptOutcome};
    use super::super::stats::Stats;
    use super::super::{ConnId, CoreConfig, Effect, Now};
    use super::*;
    use crate::protocol::view::{Role, RoomKind};
    use crate::protocol::{Epoch, Seq};
    use uuid::Uuid;

    const ROOM: RoomId = RoomId(Uuid::from_u128(7));
    const BY: Device = (
        0,
        ConnId {
            index: 3,
            generation: 0,
        },
    );

    fn user(n: u128) -> UserId {
        UserId(Uuid::from_u128(n))
    }

    /// The home of one room to which this shard listens, and its surroundings.
    struct World {
        home: Home,
        config: CoreConfig,
        bus: Bus,
        stats: Stats,
        effects: Vec<Effect>,
        now: Now,
    }

    impl World {
        fn new(members: u128) -> World {
            let mut world = World {
                home: Home::new(1),
                config: CoreConfig::new("test", 1, Epoch(1)),
                bus: Bus::new(1, 1),
                stats: Stats::default(),
                effects: Vec::new(),
                now: Now::default(),
            };
            let members = (1..=members).map(|n| (user(n), Role::Member)).collect();
            world.act(|home, ctx| {
                let asked = SubscribeRoom {
                    room: ROOM,
                    head: 9,
                    after: None,
                };
                let subscribe = Subscribe {
                    shard: 0,
                    conn: BY.1,
                    user: user(1),
                    rooms: vec![asked],
                };
                home.subscribe(&subscribe, ctx);
                let opened = OpenedRoom {
                    floor: 0,
                    last_seq: 9,
                    kind: RoomKind::Group,
                    severed: false,
                    members,
                };
                home.opened(ROOM, Some(opened), ctx);
            });
            world.bus.local.clear();
            world.effects.clear();
            world
        }

        fn act(&mut self, act: impl FnOnce(&mut Home, &mut Context<'_>)) {
            let mut ctx = Context {
                now: self.now,
                config: &self.config,
                shard: 0,
                bus: &mut self.bus,
                stats: &mut self.stats,
                effects: &mut self.effects,
            };
            act(&mut self.home, &mut ctx);
        }

        fn read(&mut self, n: u128, seq: Seq) {
            let given = GivenReceipts {
                user: user(n),
                by: BY,
                is_read: true,
                rooms: vec![(ROOM, seq)],
            };
            self.act(|home, ctx| home.receipts(&given, ctx));
        }

        /// Time passes; what is given to the store is written. How many were given.
        fn tick(&mut self) -> usize {
            self.now.mono_us += limits::RECEIPTS_MS * 1_000;
            self.act(Home::tick_receipts);
            let mut count = 0;
            for effect in std::mem::take(&mut self.effects) {
                if let Effect::Store(ticket, StoreCall::WriteReceipts(receipts)) = effect {
                    count += receipts.len();
                    let advanced = receipts.iter().map(|it| ReceiptOutcome::Advanced {
                        read_seq: it.read_seq,
                        delivered_seq: it.delivered_seq,
                        is_read: true,
                    });
                    let answer = StoreAnswer::WriteReceipts(advanced.collect());
                    self.act(|home, ctx| home.answered(ticket, Ok(answer), ctx));
                }
            }
            count
        }

        /// What the shard was told: read so far, by whom, and whether others see it.
        fn told(&mut self) -> Vec<(UserId, Seq, bool)> {
            let mut all = Vec::new();
            for local in self.bus.local.drain(..) {
                let Local::Message(MeshMessage::ToldReceipts(receipts)) = local else {
                    panic!("{local:?}");
                };
                assert_eq!(receipts.room, ROOM);
                let told = receipts.told.iter();
                all.extend(told.map(|it| (it.mark.user_id, it.mark.read_seq, it.frame.is_some())));
            }
            all
        }
    }

    #[test]
    fn a_shard_with_too_much_to_do_writes_receipts_and_tells_them_later() {
        let mut world = World::new(3);
        world.bus.load = Load::NoReceipts;
        for seq in 2..=5 {
            world.read(2, seq);
            assert_eq!(world.tick(), 1);
        }
        world.read(9, 5);
        assert_eq!((world.tick(), world.told()), (0, vec![]));
        assert_eq!(
            (world.stats.receipts_taken, world.stats.receipts_written),
            (4, 4)
        );
        world.bus.load = Load::NoPresence;
        world.tick();
        assert_eq!(world.told(), [(user(2), 5, true)], "only the newest");
        world.tick();
        assert_eq!(world.told(), []);
    }

    #[test]
    fn who_takes_no_more_is_told_later_of_what_is_newest() {
        let mut world = World::new(3);
        world.config.mesh_deliver_max = 0;
        world.read(2, 4);
        world.read(3, 4);
        assert_eq!((world.tick(), world.told()), (2, vec![]));
        world.read(2, 6);
        assert_eq!((world.tick(), world.told()), (1, vec![]));
        world.config.mesh_deliver_max = 1;
        world.tick();
        assert_eq!(world.told(), [(user(2), 6, true), (user(3), 4, true)]);
    }

    #[test]
    fn in_a_large_room_only_the_own_devices_are_told() {
        let mut world = World::new(limits::RECEIPT_MEMBERS_MAX as u128 + 1);
        world.read(2, 4);
        world.tick();
        assert_eq!(world.told(), [(user(2), 4, false)]);
        let mut world = World::new(limits::RECEIPT_MEMBERS_MAX as u128);
        world.read(2, 4);
        world.tick();
        assert_eq!(world.told(), [(user(2), 4, true)]);
    }

    #[test]
    fn what_other_nodes_wrote_is_told_here_and_not_passed_on() {
        let mut world = World::new(3);
        world.config.peers = Peers::Relay;
        let receipt = RelayedReceipt {
            user: user(2),
            read_seq: 3,
            delivered_seq: 4,
            is_own_changed: false,
        };
        world.act(|home, _| home.heard_receipts(ROOM, &[receipt]));
        world.tick();
        assert_eq!(world.told(), [(user(2), 3, true)]);
        assert_eq!(world.stats.relay_published, 0);
        world.read(3, 5);
        world.tick();
        assert_eq!(world.told(), [(user(3), 5, true)]);
        assert_eq!(world.stats.relay_published, 1);
    }
}
