//! The issuer's keys as they are known now: which are used, when they are fetched again, and who waits for
//! that. Neither fetches nor reads a clock: [`super::remote`] does.
//!
//! Invariants: keys that were fetched are used until others are, however long the issuer is away; a `kid`
//! that nobody knows makes the issuer be asked at most once in [`limits::KEYS_ASK_MS`], however many come;
//! who waits is answered once, after [`limits::IDENTIFY_MS_MAX`] at the latest; `Invalid` is said for want of a key only by
//! a set that was asked for after the token came.

use super::claims::Issuer;
use super::jwks::{Found, KeySet};
use crate::chat::port::{Decided, Identity, IdentityError};
use crate::limits;
use crate::protocol::UnixMs;
use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// The time, as it is told.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Times {
    /// ms of a clock that never goes back.
    pub mono_ms: u64,
    /// The wall clock.
    pub unix: UnixMs,
}

/// The keys, and who waits for others.
pub struct Keys {
    issuer: Issuer,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    known: Option<Arc<KeySet>>,
    /// How often they were fetched, or it was tried: a token waits for the end of a later one.
    round: u64,
    fetching: bool,
    began_ms: Option<u64>,
    failures: u32,
    /// When they are fetched next.
    next_ms: u64,
    waiting: VecDeque<Waiting>,
}

struct Waiting {
    token: String,
    until_ms: u64,
    /// The first round that began after it came.
    round: u64,
    decided: Decided,
}

/// A verdict and whom to tell it.
pub type Told = (Decided, Result<Identity, IdentityError>);

/// What becomes of a token.
pub enum Asked {
    /// This is known at once.
    Now(Result<Identity, IdentityError>),
    /// It waits for keys; whether the one who fetches them has to be woken.
    Waits {
        /// Whether there is something to do before the time that was last said.
        sooner: bool,
    },
}

impl Keys {
    /// None yet: they are to be fetched at once.
    pub fn new(issuer: Issuer) -> Keys {
        Keys {
            issuer,
            state: Mutex::default(),
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// How many keys are known.
    pub fn known(&self) -> usize {
        self.state().known.as_ref().map_or(0, |known| known.len())
    }

    /// Checks a token. `later` is asked for where the verdict goes only if it has to wait.
    pub fn check(&self, token: &str, now: Times, later: &mut dyn FnMut() -> Decided) -> Asked {
        let (known, round) = {
            let state = self.state();
            (state.known.clone(), state.round)
        };
        if let Found::Verdict(verdict) = self.found(known.as_deref(), token, now) {
            return Asked::Now(verdict);
        }
        let mut state = self.state();
        if state.round != round {
            // Others came in between.
            let known = state.known.clone();
            drop(state);
            if let Found::Verdict(verdict) = self.found(known.as_deref(), token, now) {
                return Asked::Now(verdict);
            }
            state = self.state();
        }
        let before_ms = state.next_ms;
        if !state.fetching {
            // What somebody out there writes into a token makes us ask no sooner than this.
            let soonest_ms = state
                .began_ms
                .map_or(0, |began| began + limits::KEYS_ASK_MS);
            state.next_ms = state.next_ms.min(soonest_ms.max(now.mono_ms));
        }
        let until_ms = now.mono_ms + limits::IDENTIFY_MS_MAX;
        let comes = state.fetching || state.next_ms < until_ms;
        if !comes || state.waiting.len() >= limits::IDENTIFY_WAITING_MAX {
            return Asked::Now(Err(IdentityError::Unavailable));
        }
        let round = state.round + 1 + u64::from(state.fetching);
        state.waiting.push_back(Waiting {
            token: token.to_owned(),
            until_ms,
            round,
            decided: later(),
        });
        let sooner = state.next_ms < before_ms || state.waiting.len() == 1;
        Asked::Waits { sooner }
    }

    fn found(&self, known: Option<&KeySet>, token: &str, now: Times) -> Found {
        match known {
            Some(known) => known.check(token, &self.issuer, now.unix),
            None if token.len() > limits::TOKEN_BYTES_MAX => {
                Found::Verdict(Err(IdentityError::Invalid))
            }
            None => Found::NoSuchKey,
        }
    }

    /// When there is something to do next: keys to fetch, or somebody who has waited long enough.
    pub fn due_ms(&self) -> u64 {
        let state = self.state();
        let waits_until = state.waiting.front().map_or(u64::MAX, |one| one.until_ms);
        let fetch = if state.fetching {
            u64::MAX
        } else {
            state.next_ms
        };
        fetch.min(waits_until)
    }

    /// Whether the keys are to be fetched now; then it has begun.
    pub fn begin(&self, now: Times) -> bool {
        let mut state = self.state();
        if state.fetching || state.next_ms > now.mono_ms {
            return false;
        }
        state.fetching = true;
        state.began_ms = Some(now.mono_ms);
        true
    }

    /// The fetch has ended: who is told what. `None`: it failed.
    #[must_use]
    pub fn end(&self, now: Times, fetched: Option<KeySet>) -> Vec<Told> {
        let mut state = self.state();
        state.fetching = false;
        state.round += 1;
        match fetched {
            Some(keys) => {
                state.known = Some(Arc::new(keys));
                state.failures = 0;
                state.next_ms = now.mono_ms + limits::KEYS_REFRESH_MS;
            }
            None => {
                let wait_ms = limits::KEYS_RETRY_MS << state.failures.min(10);
                state.failures = state.failures.saturating_add(1);
                state.next_ms = now.mono_ms + wait_ms.min(limits::KEYS_ASK_MS);
            }
        }
        let (known, round, failed) = (state.known.clone(), state.round, state.failures > 0);
        let next_ms = state.next_ms;
        let waiting = std::mem::take(&mut state.waiting);
        drop(state);
        let mut told = Vec::with_capacity(waiting.len());
        let mut stay = VecDeque::new();
        for one in waiting {
            match self.found(known.as_deref(), &one.token, now) {
                Found::Verdict(verdict) => told.push((one.decided, verdict)),
                Found::NoSuchKey if !failed && one.round <= round => {
                    told.push((one.decided, Err(IdentityError::Invalid)));
                }
                Found::NoSuchKey if next_ms < one.until_ms => stay.push_back(one),
                Found::NoSuchKey => told.push((one.decided, Err(IdentityError::Unavailable))),
            }
        }
        let mut state = self.state();
        // Those who came meanwhile have waited less.
        stay.append(&mut state.waiting);
        state.waiting = stay;
        told
    }

    /// Who has waited long enough.
    #[must_use]
    pub fn expire(&self, now: Times) -> Vec<Told> {
        let mut state = self.state();
        let mut told = Vec::new();
        while let Some(one) = state
            .waiting
            .pop_front_if(|one| one.until_ms <= now.mono_ms)
        {
            told.push((one.decided, Err(IdentityError::Unavailable)));
        }
        told
    }
}
