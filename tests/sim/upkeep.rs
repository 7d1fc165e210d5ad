//! What is done for those who run the service while people write: users are erased, and what is old is dropped. The
//! steps are the store's own and the shards' own; who takes them is any node, and goes on where another one stopped.

use crate::node::At;
use crate::world::World;
use caffis_chat::chat::Input;
use caffis_chat::chat::port::files::{UploadAnswer, UploadCall};
use caffis_chat::chat::port::upkeep::{DAY_MS, Erasure, Upkeep, UpkeepDone};
use caffis_chat::chat::port::{Op, OpKind, OpReply, ServiceAsk, StoreAnswer, StoreCall};
use caffis_chat::protocol::ending::{EndsWhich, SessionsEnd};
use caffis_chat::protocol::{ClientMsgId, CloseCode, RoomId, Seq, UnixMs, UserId};

/// The newest events of a room, which are not dropped.
const KEPT: Seq = 2;
/// So many events of a room clients forget before they come back, to be told them again.
const FORGOTTEN: Seq = 30;

impl World {
    fn upkeep(&mut self, at: UnixMs, step: Upkeep) -> UpkeepDone {
        match self.write_at(at, StoreCall::Upkeep(step)) {
            Ok(StoreAnswer::Upkeep(done)) => done,
            other => panic!("upkeep: {other:?}"),
        }
    }

    /// Somebody wants to be forgotten: the account is gone, and it is told, or that is lost.
    pub fn begin_erasure(&mut self) -> Result<(), String> {
        let place = self.pick_client();
        let user = self.clients[place].user;
        let others = self
            .clients
            .iter()
            .filter(|client| client.user != user && !client.erased);
        if others.count() < 2 || self.clients[place].erased {
            return Ok(());
        }
        self.report.erased += 1;
        self.upkeep(self.unix(), Upkeep::EraseBegin(user));
        self.erasing.push(user);
        for client in self.clients.iter_mut().filter(|client| client.user == user) {
            client.erased = true;
        }
        if let Some(host) = self
            .pick_running(|_| true)
            .filter(|_| self.rng.permille(700))
        {
            let end = SessionsEnd {
                user,
                version: SessionsEnd::FOR_GOOD,
                code: CloseCode::UserDeleted,
                which: EndsWhich::BeganBefore,
            };
            let ask = Box::new(ServiceAsk::End(end));
            self.input(At { host, shard: 0 }, Input::Serve(0, ask))?;
        }
        Ok(())
    }

    /// Some node goes on with an erasure.
    pub fn go_on_erasing(&mut self) -> Result<(), String> {
        let Some(user) = self.erasing.first().copied() else {
            return Ok(());
        };
        let UpkeepDone::EraseNext(Some(erasure)) =
            self.upkeep(self.unix(), Upkeep::EraseNext(Some(user)))
        else {
            return Err(format!("nothing is known of the erasure of {user}"));
        };
        if erasure.rooms.is_empty() {
            self.remove_files(user)?;
            if self.upkeep(self.unix(), Upkeep::EraseEnd(user)) == UpkeepDone::EraseEnd(true) {
                self.erasing.remove(0);
            }
            return Ok(());
        }
        let room = erasure.rooms[self.rng.below(erasure.rooms.len())];
        self.erase_in(&erasure, room)
    }

    fn erase_in(&mut self, erasure: &Erasure, room: RoomId) -> Result<(), String> {
        let Some(host) = self.pick_running(|_| true) else {
            return Ok(());
        };
        let op = Op {
            actor: erasure.user,
            room,
            kind: OpKind::Erase {
                requested_at: erasure.requested_at,
            },
        };
        let shard = usize::from(room.bucket()) % self.hosts[host].shards;
        let ask = Box::new(ServiceAsk::Write(op));
        self.input(At { host, shard }, Input::Serve(1, ask))
    }

    fn remove_files(&mut self, user: UserId) -> Result<(), String> {
        let call = UploadCall::ToRemove {
            owner: Some(user),
            limit: 32,
        };
        let removed = match self.write(StoreCall::Uploads(Box::new(call))) {
            Ok(StoreAnswer::Uploads(answer)) => match *answer {
                UploadAnswer::ToRemove(removed) => removed,
                other => return Err(format!("{other:?}")),
            },
            other => return Err(format!("{other:?}")),
        };
        let ids = removed.into_iter().map(|upload| upload.id).collect();
        let call = StoreCall::Uploads(Box::new(UploadCall::Removed(ids)));
        self.write(call)
            .map(drop)
            .map_err(|error| format!("{error:?}"))
    }

    /// What is older than some event of some room is dropped. To the store it is a day later, so that nothing
    /// else has to wait for one.
    pub fn drop_old(&mut self) -> Result<(), String> {
        let rooms: Vec<(RoomId, Seq)> = self.last_seqs().into_iter().collect();
        let floor_of = |room: &RoomId| self.truth.floors.get(room).copied().unwrap_or(0);
        let longest = rooms
            .iter()
            .max_by_key(|(room, last)| last - floor_of(room));
        let Some((room, last_seq)) = longest.copied() else {
            return Ok(());
        };
        let floor = floor_of(&room);
        if last_seq < floor + KEPT + 3 {
            return Ok(());
        }
        let most = (last_seq - floor - KEPT) as usize;
        let first_kept = floor + 1 + self.rng.below(most) as Seq;
        let kept = self.events(room, first_kept - 1, first_kept)?;
        let Some(kept) = kept.first() else {
            return Err(format!("no event {first_kept} of {room}"));
        };
        let at = UnixMs(kept.ts.0 + DAY_MS);
        self.upkeep(at, Upkeep::Retain { room, days: 1 });
        let before = floor;
        let floor = self.floor_of(room);
        if floor >= first_kept {
            return Err(format!("{room} is dropped up to {floor}, not {first_kept}"));
        }
        if floor > 0 {
            self.report.dropped += u64::from(floor > before);
            self.truth.floors.insert(room, floor);
            // They are not told again; what they were has been compared up to here.
            self.truth
                .events
                .retain(|(of, seq), _| *of != room || *seq > floor);
        }
        Ok(())
    }

    fn floor_of(&mut self, room: RoomId) -> Seq {
        let (rooms, users) = (vec![room], Vec::new());
        match self
            .store
            .read(self.unix(), &StoreCall::Heads { rooms, users })
        {
            Ok(StoreAnswer::Heads { floors, .. }) => floors.first().map_or(0, |(_, floor)| *floor),
            other => panic!("heads: {other:?}"),
        }
    }

    /// Of whom is erased nothing is left, with anybody.
    pub fn compare_erased(&mut self) -> Result<(), String> {
        let erased: Vec<UserId> = self.erased_users();
        for room in self.last_seqs().into_keys() {
            for event in self.events(room, 0, Seq::MAX)? {
                let json = event.to_json();
                let names = |user: &&UserId| json.contains(&user.to_string());
                if event.body.name() != "user.erased" && erased.iter().any(|user| names(&user)) {
                    return Err(format!("of an erased user: {json}"));
                }
            }
        }
        for client in self.clients.iter().filter(|client| !client.gone) {
            if client.erased {
                return Err(format!("{} is erased and connected", client.user));
            }
            for (room, view) in &client.rooms {
                for (seq, shown) in &view.messages {
                    let floor = self.truth.floors.get(room).copied().unwrap_or(0);
                    if *seq > floor && erased.iter().any(|user| user.to_string() == shown.sender) {
                        let user = client.user;
                        return Err(format!("{user} holds {room}/{seq} of an erased: {shown:?}"));
                    }
                }
            }
        }
        Ok(())
    }

    fn erased_users(&self) -> Vec<UserId> {
        let erased = self.clients.iter().filter(|client| client.erased);
        erased.map(|client| client.user).collect()
    }

    /// All come back as if they had been away for longer. Who has a position that is no longer kept is told so, and
    /// has then what there is; and nothing that an erased user wrote is told again, wherever it is told from.
    pub fn come_back(&mut self) -> Result<(), String> {
        if self.truth.floors.is_empty() && self.truth.erased.is_empty() {
            return Ok(());
        }
        // A node knows of a floor after 5 s, and of what its store has not, after one round more.
        self.pause(12_000)?;
        let floors = self.truth.floors.clone();
        for place in 0..self.clients.len() {
            let client = &mut self.clients[place];
            if client.gone {
                continue;
            }
            for (room, view) in &mut client.rooms {
                view.position = match floors.get(room) {
                    Some(floor) => floor - 1,
                    None => view.position.saturating_sub(FORGOTTEN),
                };
            }
            self.hang_up(place, None)?;
        }
        self.truth.is_erased_for_all = true;
        self.settle_until(|world| world.is_settled(), World::unsettled)?;
        for client in self.clients.iter().filter(|client| !client.gone) {
            for (room, view) in &client.rooms {
                let Some(floor) = floors.get(room) else {
                    continue;
                };
                if !view.expired {
                    return Err(format!(
                        "{} was not told of the floor of {room}",
                        client.user
                    ));
                }
                if let Some((seq, shown)) = view.messages.first_key_value()
                    && seq <= floor
                    && !shown.deleted
                {
                    return Err(format!(
                        "{} holds {seq} of {room}, below {floor}",
                        client.user
                    ));
                }
                self.report.expired_told += 1;
            }
        }
        Ok(())
    }

    /// A message that was dropped is still the same one when it is sent again.
    pub fn compare_sent_again(&mut self) -> Result<(), String> {
        let floors = self.truth.floors.clone();
        for place in 0..self.clients.len() {
            let user = self.clients[place].user;
            for sent in self.clients[place].done.clone() {
                let key = self.truth.key_now((sent.room, user, sent.id));
                let acked = self.truth.acked.get(&key).copied();
                let floor = floors.get(&sent.room).copied().unwrap_or(0);
                let Some(acked) = acked.filter(|seq| *seq <= floor && sent.upload.is_none()) else {
                    continue;
                };
                let op = Op {
                    actor: user,
                    room: sent.room,
                    kind: OpKind::Send {
                        client_msg_id: ClientMsgId(sent.id),
                        text: sent.text.clone(),
                        reply_to_seq: None,
                        mentions: Vec::new(),
                        files: None,
                    },
                };
                let done = self.write(StoreCall::Commit(vec![op]));
                let is_same = match &done {
                    Ok(StoreAnswer::Commit(outcomes)) => outcomes.iter().flatten().any(|done| {
                        matches!(&done.reply, OpReply::Sent(sent) if sent.duplicate && sent.seq == acked)
                    }),
                    _ => false,
                };
                if !is_same {
                    return Err(format!("{sent:?} was at {acked}, and is {done:?}"));
                }
            }
        }
        Ok(())
    }
}
