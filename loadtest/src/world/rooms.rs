//! Making the rooms: by their first members, all members named, then waiting until everybody heard.

use std::time::Duration;

use uuid::Uuid;

use super::{Early, Phase, RoomPhase, SetupError, State, Timer, World};
use crate::engine::Engine;
use crate::identity;
use crate::ids::{ClientIndex, RoomIndex};
use crate::limits::{MEMBERS_PER_REQUEST_MAX, ROOM_CREATES_IN_FLIGHT_MAX};
use crate::wire;

impl World {
    /// Makes all rooms, or finds them from an earlier run on the same store. All clients must have
    /// been ready once, or the server does not know the users.
    ///
    /// # Errors
    /// When a room is refused, or not all members hear of theirs within the limit.
    pub fn make_rooms(&mut self, limit: Duration) -> Result<(), SetupError> {
        let rooms = self.state.rooms.len();
        self.state.room_queue = (0..rooms as u32).map(RoomIndex).collect();
        if self.run_until(limit, |state| state.rooms_complete == rooms)? {
            return Ok(());
        }
        let state = &self.state;
        let lacking = state
            .rooms
            .iter()
            .find(|room| room.phase != RoomPhase::Complete);
        Err(SetupError(format!(
            "{} of {rooms} rooms are complete; one that is not: {}; errors: {:?}, findings: {:?}",
            state.rooms_complete,
            lacking.map_or_else(String::new, |room| format!(
                "{:?}, {} of {} members heard of it",
                room.phase,
                room.joined,
                room.members.len()
            )),
            state.stats.errors,
            state.checker.findings.examples(),
        )))
    }
}

impl State {
    pub(super) fn start_rooms(&mut self, engine: &mut Engine) {
        while self.rooms_in_flight < ROOM_CREATES_IN_FLIGHT_MAX {
            let Some(room) = self.room_queue.pop_front() else {
                return;
            };
            self.rooms_in_flight += 1;
            self.rooms[room.index()].phase = RoomPhase::Asked;
            self.ask_room(engine, room);
        }
    }

    /// Sends what the room's making needs next; nothing if its creator is away, who asks when it is
    /// back.
    fn ask_room(&mut self, engine: &mut Engine, room: RoomIndex) {
        let plan = &mut self.rooms[room.index()];
        let creator = &self.clients[plan.members[0].index()];
        let (Phase::Ready, Some(id)) = (creator.phase, creator.conn) else {
            return;
        };
        let frame = match plan.id {
            None => {
                plan.named = plan.members.len().min(MEMBERS_PER_REQUEST_MAX);
                let members = plan.members[1..plan.named].iter();
                wire::room_create(
                    room,
                    identity::client_room_id(&self.layout_name, room),
                    &format!("load {}", room.0),
                    members.map(|client| identity::user_id(*client)),
                )
            }
            Some(room_id) => {
                let from = plan.named;
                plan.named = plan.members.len().min(from + MEMBERS_PER_REQUEST_MAX);
                let members = plan.members[from..plan.named].iter();
                wire::members_add(
                    room,
                    room_id,
                    members.map(|client| identity::user_id(*client)),
                )
            }
        };
        engine.send_text(id, frame.as_bytes());
    }

    /// A creator is back: what it had asked may never have arrived, and asking twice changes nothing.
    pub(super) fn ask_rooms_again(&mut self, client: ClientIndex) {
        let rooms: Vec<RoomIndex> = self.clients[client.index()]
            .memberships
            .iter()
            .filter(|(_, slot)| slot.0 == 0)
            .map(|(room, _)| *room)
            .filter(|room| self.rooms[room.index()].phase == RoomPhase::Asked)
            .collect();
        for room in rooms {
            self.room_refused(room, 0);
        }
    }

    pub(super) fn room_refused(&mut self, room: RoomIndex, pause_us: u64) {
        self.rooms_in_flight -= 1;
        let plan = &mut self.rooms[room.index()];
        plan.phase = RoomPhase::Waiting;
        // The last chunk again; those before it were answered.
        plan.named = plan.named.saturating_sub(MEMBERS_PER_REQUEST_MAX);
        if plan.id.is_some() {
            plan.named = plan
                .named
                .max(MEMBERS_PER_REQUEST_MAX.min(plan.members.len()));
        }
        self.timer(pause_us, Timer::CreateRoom(room));
    }

    pub(super) fn room_named(&mut self, engine: &mut Engine, room: RoomIndex, room_id: Uuid) {
        if self.rooms[room.index()].id.is_none() {
            self.rooms[room.index()].id = Some(room_id);
            self.room_by_id.insert(room_id, room);
            for (client, early) in self.early.remove(&room_id).unwrap_or_default() {
                let Some((room, slot)) = self.membership(client, room_id) else {
                    continue;
                };
                match early {
                    Early::Joined(last_seq) => self.room_added(client, room_id, last_seq),
                    Early::Event(seq, fingerprint) => {
                        let arrival = self.checker.event(room, slot, seq, fingerprint);
                        if arrival.needs_content {
                            // Nobody writes before all rooms are made: it is no message.
                            self.checker.content(room, seq, fingerprint, "", None);
                        }
                    }
                }
            }
        }
        self.members_added(engine, room);
    }

    pub(super) fn members_added(&mut self, engine: &mut Engine, room: RoomIndex) {
        let plan = &mut self.rooms[room.index()];
        if plan.phase != RoomPhase::Asked {
            return;
        }
        if plan.named < plan.members.len() {
            self.ask_room(engine, room);
            return;
        }
        plan.phase = RoomPhase::Named;
        self.rooms_in_flight -= 1;
        self.complete(room);
    }

    pub(super) fn room_added(&mut self, client: ClientIndex, room_id: Uuid, last_seq: u64) {
        let Some((room, slot)) = self.membership(client, room_id) else {
            self.early(client, room_id, Early::Joined(last_seq));
            return;
        };
        let was_joined = self.checker.cursor(room, slot).is_joined;
        self.checker.joined(room, slot, last_seq);
        if !was_joined {
            self.count_joined(room);
        }
    }

    pub(super) fn count_joined(&mut self, room: RoomIndex) {
        self.rooms[room.index()].joined += 1;
        self.complete(room);
    }

    fn complete(&mut self, room: RoomIndex) {
        let plan = &mut self.rooms[room.index()];
        if plan.phase == RoomPhase::Named && plan.joined == plan.members.len() {
            plan.phase = RoomPhase::Complete;
            self.rooms_complete += 1;
        }
    }
}
