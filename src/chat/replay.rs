//! Events that a connection missed, pulled from their home as its outbox drains, so that a replay
//! never counts as slow and never holds more than a stretch.
//!
//! Invariants: one room at a time, one stretch at a time; while a room is being replayed its live
//! events pass the connection over, and the replay goes on until it has reached what this shard
//! was delivered: in that step the connection goes live.

use super::ConnId;
use super::bus::{Context, MeshMessage, Stretch};
use super::session::{Session, State};
use super::sessions::Sessions;
use crate::protocol::event::{RoomGap, RoomNotice};
use crate::protocol::reply::NotRecovered;
use crate::protocol::{RoomId, Seq};

impl Sessions {
    /// Asks for the next stretch, if there is anything to replay and room for it.
    pub(super) fn go_on_replaying(&mut self, conn: ConnId, ctx: &mut Context<'_>) {
        loop {
            let Some(session) = self.get_mut(conn) else {
                return;
            };
            let has_room = session.outbox.bytes() < ctx.config.replay_pull_bytes();
            let State::Ready(ready) = &mut session.state else {
                return;
            };
            if ready.pulling || !has_room {
                return;
            }
            if ready.replay.is_empty() {
                ready.replay.shrink_to_fit();
                return;
            }
            // A client may be ahead of this shard, when it was connected elsewhere before: its
            // turn comes when the shard has reached it.
            let (index, rooms) = (&self.index, &self.rooms);
            let position_of = |room: RoomId| {
                let local = index
                    .get(&room)
                    .and_then(|place| rooms.get(*place as usize));
                local.and_then(|local| local.position)
            };
            let Some(State::Ready(ready)) = state_of(&mut self.table, conn) else {
                return;
            };
            let next = ready.replay.iter().position(|replay| {
                position_of(replay.room).is_none_or(|position| replay.cursor <= position)
            });
            let Some(next) = next else {
                return self.held_replays.push(conn);
            };
            ready.replay.swap(0, next);
            let replay = ready.replay[0];
            if position_of(replay.room).is_none_or(|position| replay.cursor == position) {
                ready.replay.pop_front();
                let place = self.index.get(&replay.room).copied();
                if let Some(local) = place.and_then(|place| self.rooms.get_mut(place as usize)) {
                    local.go_live(conn);
                }
                continue;
            }
            ready.pulling = true;
            let home = ctx.home_of(replay.room);
            let pull = MeshMessage::Pull {
                conn,
                room: replay.room,
                after: replay.cursor,
            };
            return ctx.tell(home, pull);
        }
    }

    /// The stretch that was asked for.
    pub fn pulled(&mut self, conn: ConnId, room: RoomId, frames: Stretch, ctx: &mut Context<'_>) {
        let Some(State::Ready(ready)) = self.get_mut(conn).map(|session| &mut session.state) else {
            return;
        };
        ready.pulling = false;
        // The user may have left the room meanwhile.
        let replays = ready
            .replay
            .front()
            .is_some_and(|replay| replay.room == room);
        let frames = match frames {
            Stretch::Frames(frames) => frames,
            Stretch::Later => {
                self.held_replays.push(conn);
                return;
            }
            Stretch::Expired(floor) => {
                if replays && !self.skip_to(conn, floor, ctx) {
                    return;
                }
                Vec::new()
            }
        };
        if replays {
            for (seq, frame) in frames {
                let Some(State::Ready(ready)) =
                    self.get_mut(conn).map(|session| &mut session.state)
                else {
                    return;
                };
                let Some(replay) = ready.replay.front_mut() else {
                    return;
                };
                if seq != replay.cursor + 1 {
                    continue;
                }
                replay.cursor = seq;
                ctx.stats.replayed += 1;
                if !self.say(conn, &frame.unpack(), ctx) {
                    return;
                }
            }
        }
        self.go_on_replaying(conn, ctx);
    }

    /// What was being replayed is no longer kept: the client was told that it would get it, so it is told that it
    /// does not, and the replay goes on above. Returns whether the connection is still there.
    fn skip_to(&mut self, conn: ConnId, floor: Seq, ctx: &mut Context<'_>) -> bool {
        let Some(State::Ready(ready)) = self.get_mut(conn).map(|session| &mut session.state) else {
            return false;
        };
        let Some(replay) = ready.replay.front_mut() else {
            return true;
        };
        if replay.cursor >= floor {
            return true;
        }
        replay.cursor = floor;
        let gap = RoomNotice::RoomGap {
            room_id: replay.room,
            data: RoomGap {
                last_seq: floor,
                reason: NotRecovered::PositionExpired,
            },
        };
        self.say_json(conn, &gap.to_json(), ctx)
    }
}

/// The state of a connection, while the rooms are looked at.
fn state_of(table: &mut [Option<Box<Session>>], conn: ConnId) -> Option<&mut State> {
    let session = table.get_mut(conn.index as usize)?.as_deref_mut()?;
    (session.generation == conn.generation).then_some(&mut session.state)
}
