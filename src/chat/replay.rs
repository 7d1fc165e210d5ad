//! Events that a connection missed, pulled from their home as its outbox drains, so that a replay
//! never counts as slow and never holds more than a stretch.
//!
//! Invariants: one room at a time, one stretch at a time; while a room is being replayed its live
//! events pass the connection over, and the replay goes on until it has reached what this shard
//! was delivered: in that step the connection goes live.

use super::ConnId;
use super::bus::{Context, MeshMessage, Packed};
use super::session::State;
use super::sessions::Sessions;
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
            let Some(replay) = ready.replay.front().copied() else {
                return;
            };
            let place = self.index.get(&replay.room).copied();
            let local = place.and_then(|place| self.rooms.get_mut(place as usize));
            let caught_up = match local {
                Some(local)
                    if local
                        .position
                        .is_some_and(|position| replay.cursor < position) =>
                {
                    false
                }
                Some(local) => {
                    local.go_live(conn);
                    true
                }
                None => true,
            };
            let Some(State::Ready(ready)) = self.get_mut(conn).map(|session| &mut session.state)
            else {
                return;
            };
            if caught_up {
                ready.replay.pop_front();
                if ready.replay.is_empty() {
                    ready.replay.shrink_to_fit();
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
    pub fn pulled(
        &mut self,
        conn: ConnId,
        room: RoomId,
        frames: Option<Vec<(Seq, Packed)>>,
        ctx: &mut Context<'_>,
    ) {
        let Some(State::Ready(ready)) = self.get_mut(conn).map(|session| &mut session.state) else {
            return;
        };
        ready.pulling = false;
        let Some(frames) = frames else {
            self.held_replays.push(conn);
            return;
        };
        // The user may have left the room meanwhile.
        let replays = ready
            .replay
            .front()
            .is_some_and(|replay| replay.room == room);
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
}
