//! The end of the mixed load, when all is quiet: what would stand in the way of another run is undone, and what was
//! written last is searched for until it is found.

use std::time::Duration;

use super::{About, Ask, State};
use crate::checker::{Kind, Outcome};
use crate::clock::us;
use crate::engine::Engine;
use crate::identity;
use crate::ids::{ClientIndex, MessageNumber, RoomIndex};
use crate::limits::{INDEX_LIMIT, INSPECTION_LIMIT, LAST_SEARCHES_MAX};
use crate::mix::OpKind;
use crate::world::{Phase, SetupError, World};

/// From one look at what is left to the next.
const PAUSE: Duration = Duration::from_millis(100);
/// Newest events of a room among which a message is looked for.
const LOOK_BACK: u64 = 64;

impl World {
    /// What is archived comes back to the lists, and nobody blocks anybody any more.
    pub(in crate::world) fn undo(&mut self) -> Result<(), SetupError> {
        self.undoing(true);
        let deadline_us = self.state.clock.now_us() + us(INSPECTION_LIMIT);
        let mut left = self.state.undo(&mut self.engine);
        while left > 0 && self.state.clock.now_us() < deadline_us {
            self.run_for(PAUSE)?;
            left = self.state.undo(&mut self.engine);
        }
        self.undoing(false);
        if left > 0 {
            let findings = &mut self.state.checker.findings;
            findings.found(Kind::Unanswered, || {
                format!("{left} archived rooms and blocks were not undone at the end")
            });
        }
        Ok(())
    }

    fn undoing(&mut self, is_undoing: bool) {
        if let Some(mix) = &mut self.state.mix {
            mix.more.is_undoing = is_undoing;
        }
    }

    /// Members search for the last messages of their rooms.
    pub(in crate::world) fn search_all(&mut self) -> Result<(), SetupError> {
        self.state.plan_searches();
        let deadline_us = self.state.clock.now_us() + us(INDEX_LIMIT);
        while self.state.search_again(&mut self.engine) > 0
            && self.state.clock.now_us() < deadline_us
        {
            self.run_for(PAUSE)?;
        }
        self.state.end_searches();
        Ok(())
    }
}

impl State {
    /// Asks to undo what nobody is asked to undo yet. Returns how much is left.
    pub(super) fn undo(&mut self, engine: &mut Engine) -> usize {
        let now_us = self.clock.now_us();
        let Some(mix) = &self.mix else { return 0 };
        let (archived, blocked) = (mix.more.archived.clone(), mix.more.blocked.clone());
        let left = archived.len() + blocked.len();
        for (client, room) in archived {
            let is_asked = self.mix.as_ref().is_some_and(|mix| {
                let mut asks = mix.asks.values();
                asks.any(|ask| (ask.client, ask.room, ask.kind) == (client, room, OpKind::Archive))
            });
            let (Some(room_id), false) = (self.rooms[room.index()].id, is_asked) else {
                continue;
            };
            let data = format!(r#""room_id":"{room_id}","archived":false"#);
            let ask = Ask {
                about: About::Archived(false),
                ..Ask::new(client, OpKind::Archive, room, now_us)
            };
            self.ask_at_the_end(engine, ask, ("room.archive", &data));
        }
        for (client, other) in blocked {
            let Some((room, _)) = self.clients[client.index()].memberships.first().copied() else {
                continue;
            };
            // One at a time for each client, as ever.
            let is_free = self.clients[client.index()].phase == Phase::Ready
                && (self.mix.as_mut()).is_some_and(|mix| mix.more.blocking.insert(client));
            if !is_free {
                continue;
            }
            let user = identity::user_id(other);
            let ask = Ask {
                about: About::Blocked(user, false),
                ..Ask::new(client, OpKind::Block, room, now_us)
            };
            self.ask_at_the_end(
                engine,
                ask,
                ("user.unblock", &format!(r#""user_id":"{user}""#)),
            );
        }
        left
    }

    fn ask_at_the_end(&mut self, engine: &mut Engine, ask: Ask, request: (&str, &str)) {
        if self.clients[ask.client.index()].phase == Phase::Ready {
            let ask = Ask {
                is_counted: false,
                ..ask
            };
            self.put_ask(engine, ask, request);
        }
    }

    /// Of some of the rooms, the last message that stands, and somebody who did not want to block its author.
    pub(super) fn plan_searches(&mut self) {
        let is_asked = |mix: &crate::world::Mix| mix.shares.weight(OpKind::Search) > 0;
        if !self.mix.as_deref().is_some_and(is_asked) {
            return;
        }
        let step = self.rooms.len().div_ceil(LAST_SEARCHES_MAX).max(1);
        for room in (0..self.rooms.len() as u32).step_by(step).map(RoomIndex) {
            let first = self
                .random
                .below(self.rooms[room.index()].members.len() as u64);
            let Some((number, client)) = self.last_search(room, first as usize) else {
                continue;
            };
            if let Some(mix) = &mut self.mix {
                mix.more.last_searches.insert(number, client);
            }
        }
    }

    fn last_search(&self, room: RoomIndex, first: usize) -> Option<(MessageNumber, ClientIndex)> {
        let mix = self.mix.as_ref()?;
        let members = &self.rooms[room.index()].members;
        let newest = self.checker.known_seq(room);
        let mut seqs = (newest.saturating_sub(LOOK_BACK)..=newest).rev();
        let (number, author) = seqs.find_map(|seq| {
            let number = self.checker.message_at(room, seq)?;
            let sent = self.checker.message(number)?;
            let stands = sent.outcome == Outcome::Acked && !sent.is_delete_asked;
            stands.then_some((number, members[sent.slot.index()]))
        })?;
        let mut searchers = members.iter().cycle().skip(first).take(members.len());
        let searcher = searchers.find(|client| {
            let it = &self.clients[client.index()];
            let is_there = it.is_wanted && it.phase != Phase::Stopped;
            is_there && !mix.more.apart.contains(&(**client, author))
        })?;
        Some((number, *searcher))
    }

    /// Searches for what is not found yet. Returns how much that is.
    pub(super) fn search_again(&mut self, engine: &mut Engine) -> usize {
        let now_us = self.clock.now_us();
        let Some(mix) = &self.mix else { return 0 };
        let searches = mix.more.last_searches.clone();
        for (number, client) in &searches {
            let is_asked = self.mix.as_ref().is_some_and(|mix| {
                let mut asks = mix.asks.values();
                asks.any(|ask| matches!(ask.about, About::Found(other) if other == *number))
            });
            let Some(sent) = self.checker.message(*number).filter(|_| !is_asked) else {
                continue;
            };
            let ask = Ask {
                about: About::Found(*number),
                ..Ask::new(*client, OpKind::Search, sent.room, now_us)
            };
            self.ask_at_the_end(engine, ask, ("search", &self.query(*number)));
        }
        searches.len()
    }

    /// What is not found by now is lost to searches.
    pub(super) fn end_searches(&mut self) {
        let Some(mix) = &mut self.mix else { return };
        for (number, client) in std::mem::take(&mut mix.more.last_searches) {
            mix.searches_judged += 1;
            self.checker.findings.found(Kind::WrongSearch, || {
                let number = number.0;
                format!(
                    "client {}: message {number} is not found at the end",
                    client.0
                )
            });
        }
    }
}
