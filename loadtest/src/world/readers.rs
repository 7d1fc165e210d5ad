//! The end of a run: fresh connections, with no position and no memory, read every room by
//! `history.get` to its end. What they find is what the server really holds.

use std::collections::{HashMap, VecDeque};
use std::time::Duration;

use uuid::Uuid;

use super::frames::as_page;
use super::{READER_OWNER, SetupError, State, Timer, World};
use crate::checker::{Content, Paged, RoomHistory};
use crate::clock::us;
use crate::engine::{ConnId, ConnectOptions, Engine, Incoming};
use crate::ids::{ClientIndex, NodeIndex, RoomIndex};
use crate::limits::{
    HISTORY_PAGE, READ_JOB_EVENTS, READER_ATTEMPTS_MAX, READER_SILENCE_MAX, READERS_MAX,
    READERS_PER_ROOM_MAX,
};
use crate::wire::{self, RequestId};

/// A part of a room's history.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Job {
    room: RoomIndex,
    after_seq: u64,
    /// Read up to here; `None` to the end.
    until_seq: Option<u64>,
}

pub(super) struct Reader {
    client: ClientIndex,
    conn: Option<ConnId>,
    is_ready: bool,
    attempts: u32,
    heard_us: u64,
    jobs: VecDeque<Job>,
    read: Vec<(RoomIndex, Paged)>,
    /// `last_seq` of the rooms read to the end.
    ends: Vec<(RoomIndex, u64)>,
    failure: Option<String>,
}

impl World {
    /// Reads all rooms from the run's base to their end.
    ///
    /// # Errors
    /// When a reader cannot finish within the limit or is refused again and again.
    pub fn read_histories(&mut self, limit: Duration) -> Result<Vec<RoomHistory>, SetupError> {
        self.state.readers = self.state.plan_readers();
        let mut waiting: VecDeque<u32> = (0..self.state.readers.len() as u32).collect();
        let deadline_us = self.state.clock.now_us() + crate::clock::us(limit);
        loop {
            let is_busy = |reader: &&Reader| reader.conn.is_some() || reader.attempts > 0;
            let readers = &self.state.readers;
            let open = readers.iter().filter(|reader| !reader.jobs.is_empty());
            let left = open.clone().count();
            if left == 0 {
                break;
            }
            if let Some(failure) = readers.iter().find_map(|reader| reader.failure.clone()) {
                return Err(SetupError(format!("cannot read the history: {failure}")));
            }
            if self.state.clock.now_us() > deadline_us {
                return Err(SetupError(format!(
                    "the history was not read in time: {left} of {} readers left",
                    readers.len()
                )));
            }
            let mut busy = open.filter(is_busy).count();
            while busy < READERS_MAX
                && let Some(reader) = waiting.pop_front()
            {
                self.state.connect_reader(&mut self.engine, reader);
                busy += 1;
            }
            let state = &self.state;
            self.progress
                .tick(|| format!("{}; {left} readers left", state.line()));
            self.turn()?;
        }
        Ok(self.state.collect_histories())
    }
}

impl State {
    /// Rooms are cut into jobs, a room's jobs spread over some of its members.
    fn plan_readers(&self) -> Vec<Reader> {
        let mut by_client: HashMap<ClientIndex, usize> = HashMap::new();
        let mut readers: Vec<Reader> = Vec::new();
        for (index, plan) in self.rooms.iter().enumerate() {
            let room = RoomIndex(index as u32);
            let jobs = plan_jobs(
                room,
                self.checker.base_seq(room),
                self.checker.known_seq(room),
            );
            for (place, job) in jobs.into_iter().enumerate() {
                let member = place % plan.members.len().min(READERS_PER_ROOM_MAX);
                let client = plan.members[member];
                let reader = *by_client.entry(client).or_insert_with(|| {
                    readers.push(Reader {
                        client,
                        conn: None,
                        is_ready: false,
                        attempts: 0,
                        heard_us: 0,
                        jobs: VecDeque::new(),
                        read: Vec::new(),
                        ends: Vec::new(),
                        failure: None,
                    });
                    readers.len() - 1
                });
                readers[reader].jobs.push_back(job);
            }
        }
        readers
    }

    fn collect_histories(&mut self) -> Vec<RoomHistory> {
        let mut histories = vec![RoomHistory::default(); self.rooms.len()];
        for reader in std::mem::take(&mut self.readers) {
            for (room, paged) in reader.read {
                let history = &mut histories[room.index()];
                let seq = paged.seq;
                history.contents.push((seq, paged.content));
                if let Content::Message(_) = paged.content {
                    history.shown.push((seq, paged.changed_seq, paged.shown));
                    let slot = self.slot_of(room, crate::identity::user_id(reader.client));
                    if let (Some(slot), Some(mine)) = (slot, paged.mine) {
                        history.mine.push((seq, slot, mine));
                    }
                }
            }
            for (room, last_seq) in reader.ends {
                histories[room.index()].last_seq = last_seq;
            }
        }
        for history in &mut histories {
            history.contents.sort_unstable_by_key(|(seq, _)| *seq);
        }
        histories
    }

    /// Readers take the nodes in turn: what one node says is compared with what clients of all of
    /// them saw.
    fn next_reader_node(&mut self) -> NodeIndex {
        self.node_turn = (self.node_turn + 1) % self.nodes.len();
        NodeIndex(self.node_turn as u32)
    }

    fn connect_reader(&mut self, engine: &mut Engine, reader: u32) {
        let owner = READER_OWNER + u64::from(reader);
        let node = self.next_reader_node();
        let it = &mut self.readers[reader as usize];
        it.attempts += 1;
        it.is_ready = false;
        if it.attempts > READER_ATTEMPTS_MAX {
            it.failure
                .get_or_insert_with(|| "too many attempts".to_owned());
            return;
        }
        match engine.connect(owner, node, ConnectOptions::default()) {
            Ok(id) => {
                it.conn = Some(id);
                it.heard_us = self.clock.now_us();
            }
            Err(error) => it.failure = Some(error.to_string()),
        }
    }

    pub(super) fn reader_incoming(
        &mut self,
        engine: &mut Engine,
        id: ConnId,
        reader: u32,
        incoming: Incoming<'_>,
    ) {
        let Some(it) = self.readers.get_mut(reader as usize) else {
            return;
        };
        if it.conn != Some(id) {
            return;
        }
        it.heard_us = self.clock.now_us();
        match incoming {
            Incoming::Open => match self.issuer.token(it.client) {
                Ok(token) => {
                    // A device of its own: the client itself may still be connected.
                    let device_id = Uuid::new_v5(&Uuid::NAMESPACE_OID, &reader.to_le_bytes());
                    let frame = wire::auth(
                        &token,
                        device_id,
                        None::<(&str, std::iter::Empty<(Uuid, u64)>)>,
                    );
                    engine.send_text(id, frame.as_bytes());
                }
                Err(error) => it.failure = Some(error.to_string()),
            },
            Incoming::Text(frame) => self.reader_frame(engine, id, reader, frame),
            Incoming::Closed(closed) => {
                it.conn = None;
                if it.attempts >= READER_ATTEMPTS_MAX {
                    it.failure = Some(format!("client {}: {closed:?}", it.client.0));
                }
                let pause_us = self.random.between(100_000, 1_000_000);
                self.timer(pause_us, Timer::ReaderRetry(reader));
            }
        }
    }

    fn reader_frame(&mut self, engine: &mut Engine, id: ConnId, reader: u32, frame: &[u8]) {
        let Some(head) = wire::head(frame) else {
            return;
        };
        if head.kind == "ping" {
            engine.send_text(id, br#"{"type":"pong"}"#);
            return;
        }
        let Some(request) = head.id.and_then(RequestId::from_number) else {
            return;
        };
        let it = &mut self.readers[reader as usize];
        if head.kind == "error" {
            let Ok(reply) = wire::parse::<wire::ErrorReply>(frame) else {
                it.failure = Some("an error without a code".to_owned());
                return;
            };
            let error = reply.error;
            self.stats.count_error(&error.code);
            it.attempts += 1;
            if !super::frames::is_temporary(&error.code) || it.attempts > READER_ATTEMPTS_MAX {
                it.failure = Some(format!(
                    "client {} {:?}: {} {}",
                    it.client.0,
                    it.jobs.front(),
                    error.code,
                    error.message
                ));
                return;
            }
            let ms = error.retry_after_ms.unwrap_or(500);
            let pause_us = self.random.between(ms * 1000, ms * 1250 + 1000);
            self.timer(pause_us, Timer::ReaderRetry(reader));
            return;
        }
        match request {
            RequestId::Auth => {
                it.is_ready = true;
                let client = it.client;
                self.reader_ready(client, frame);
                self.ask_reader_page(engine, reader);
            }
            RequestId::History(room) => self.reader_page(engine, reader, room, frame),
            RequestId::Send(_)
            | RequestId::RoomCreate(_)
            | RequestId::MembersAdd(_)
            | RequestId::Change(_)
            | RequestId::Ask(_) => {}
        }
    }

    /// What a fresh connection is told of its rooms, while nothing changes.
    fn reader_ready(&mut self, client: ClientIndex, frame: &[u8]) {
        if self.mix.is_none() {
            return;
        }
        let ready = match wire::parse::<wire::Data<wire::Ready>>(frame) {
            Ok(ready) => ready.data,
            Err(error) => return self.bad_frame(client, &error, frame),
        };
        for room in ready.rooms {
            if let (Some(place), Some(read_seq), Some(unread)) = (
                self.membership(client, room.room_id),
                room.read_seq,
                room.unread,
            ) {
                self.checker.own_view(place, read_seq, unread, "ready");
            }
        }
    }

    fn reader_page(&mut self, engine: &mut Engine, reader: u32, room: RoomIndex, frame: &[u8]) {
        let it = &mut self.readers[reader as usize];
        let page = match wire::parse::<wire::Data<wire::HistoryPage>>(frame) {
            Ok(reply) => reply.data,
            Err(error) => {
                it.failure = Some(format!("a page of room {}: {error}", room.0));
                return;
            }
        };
        let Some(job) = it.jobs.front_mut().filter(|job| job.room == room) else {
            return;
        };
        it.attempts = 1;
        self.stats.history_pages += 1;
        let (contents, next) = self
            .checker
            .check_page(room, &as_page(job.after_seq, &page));
        let until_seq = job.until_seq.unwrap_or(u64::MAX);
        let kept = contents
            .into_iter()
            .filter(|paged| paged.changed_seq <= until_seq)
            .map(|paged| (room, paged));
        it.read.extend(kept);
        // A page that does not advance was found by the checker; it ends the job.
        let is_stuck = next <= job.after_seq;
        job.after_seq = next;
        if !page.has_more || is_stuck || next >= until_seq {
            if job.until_seq.is_none() {
                it.ends.push((room, page.last_seq));
            }
            it.jobs.pop_front();
        }
        if it.jobs.is_empty() {
            if let Some(id) = it.conn.take() {
                engine.close(id);
            }
            return;
        }
        self.ask_reader_page(engine, reader);
    }

    fn ask_reader_page(&mut self, engine: &mut Engine, reader: u32) {
        let it = &self.readers[reader as usize];
        let (Some(job), Some(id)) = (it.jobs.front(), it.conn) else {
            return;
        };
        let Some(room_id) = self.rooms[job.room.index()].id else {
            return;
        };
        let request = wire::history_get(job.room, room_id, job.after_seq, HISTORY_PAGE);
        engine.send_text(id, request.as_bytes());
    }

    /// Ends the connections of readers that wait in vain.
    pub(super) fn sweep_readers(&mut self, engine: &mut Engine, now_us: u64) {
        for reader in 0..self.readers.len() as u32 {
            let it = &mut self.readers[reader as usize];
            let is_silent = now_us > it.heard_us + us(READER_SILENCE_MAX);
            if is_silent && let Some(id) = it.conn.take() {
                engine.abort(id);
                self.connect_reader(engine, reader);
            }
        }
    }

    /// After a pause: asks again, or connects again.
    pub(super) fn resume_reader(&mut self, engine: &mut Engine, reader: u32) {
        let Some(it) = self.readers.get(reader as usize) else {
            return;
        };
        if it.conn.is_none() {
            self.connect_reader(engine, reader);
        } else if it.is_ready {
            self.ask_reader_page(engine, reader);
        }
    }
}

fn plan_jobs(room: RoomIndex, base_seq: u64, known_seq: u64) -> Vec<Job> {
    let mut jobs = Vec::new();
    let mut after_seq = base_seq;
    while known_seq.saturating_sub(after_seq) > READ_JOB_EVENTS {
        let until_seq = after_seq + READ_JOB_EVENTS;
        jobs.push(Job {
            room,
            after_seq,
            until_seq: Some(until_seq),
        });
        after_seq = until_seq;
    }
    jobs.push(Job {
        room,
        after_seq,
        until_seq: None,
    });
    jobs
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn jobs_cover_a_history_without_a_seam() {
        for (base, known) in [
            (0, 0),
            (5, 6),
            (0, READ_JOB_EVENTS),
            (3, 10 * READ_JOB_EVENTS),
        ] {
            let jobs = plan_jobs(RoomIndex(1), base, known);
            let mut at = base;
            for job in &jobs {
                assert_eq!(job.after_seq, at);
                at = job.until_seq.unwrap_or(at);
            }
            assert_eq!(jobs.last().unwrap().until_seq, None);
            assert!(at <= known.max(base) && known.saturating_sub(at) <= READ_JOB_EVENTS);
        }
    }
}
