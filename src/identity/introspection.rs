//! Tokens of which the issuer is asked whether they are still good (RFC 7662), and what it said lately. Neither
//! asks nor reads a clock: [`super::remote`] does.
//!
//! Invariants: what was said holds for [`limits::INTROSPECTED_MS`], and never longer than the token; of a token
//! only its hash is kept; many who ask about one token ask the issuer once; who waits is answered once.

use super::claims::{Audience, Issuer, Said};
use super::keys::{Times, Told};
use crate::chat::port::{Decided, Identity, IdentityError};
use crate::limits;
use crate::protocol::UnixMs;
use aws_lc_rs::digest::{SHA256, digest};
use serde::Deserialize;
use std::collections::{BTreeMap, VecDeque};
use std::sync::{Mutex, MutexGuard, PoisonError};

/// The name of a token here.
type Hash = [u8; 32];

/// Whom a token names: by the answer alone, or by itself, and the answer must not contradict.
pub type Claimed = Option<Identity>;

/// A question for the issuer.
#[derive(Debug)]
pub struct Question {
    hash: Hash,
    /// The token.
    pub token: String,
}

/// What is known, and who waits.
pub struct Introspections {
    issuer: Issuer,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    newer: BTreeMap<Hash, Known>,
    older: BTreeMap<Hash, Known>,
    waiting: BTreeMap<Hash, Vec<Waiting>>,
    waiters: usize,
    /// Who waits longest, first.
    order: VecDeque<(u64, Hash)>,
    questions: VecDeque<Question>,
}

#[derive(Clone)]
struct Known {
    /// `None`: it is no good.
    said: Option<Answered>,
    until_ms: u64,
}

struct Waiting {
    until_ms: u64,
    claimed: Claimed,
    decided: Decided,
}

/// What the issuer answered of a good token.
#[derive(Clone, Debug)]
struct Answered {
    sub: Option<String>,
    exp: Option<u64>,
    iat: Option<u64>,
    name: Option<String>,
    picture: Option<String>,
    sid: Option<String>,
}

#[derive(Deserialize)]
struct Answer {
    active: bool,
    #[serde(default)]
    sub: Option<String>,
    #[serde(default)]
    exp: Option<u64>,
    #[serde(default)]
    nbf: Option<u64>,
    #[serde(default)]
    iat: Option<u64>,
    #[serde(default)]
    iss: Option<String>,
    #[serde(default)]
    aud: Option<Audience>,
    #[serde(default)]
    name: Option<String>,
    #[serde(default)]
    picture: Option<String>,
    #[serde(default)]
    sid: Option<String>,
}

fn hash_of(token: &str) -> Hash {
    let mut hash = [0; 32];
    hash.copy_from_slice(digest(&SHA256, token.as_bytes()).as_ref());
    hash
}

impl Introspections {
    /// Nothing is known.
    pub fn new(issuer: Issuer) -> Introspections {
        Introspections {
            issuer,
            state: Mutex::default(),
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What is known of a token: the verdict, or `None`, and a question waits for the issuer.
    pub fn check(
        &self,
        token: &str,
        claimed: Claimed,
        now: Times,
        later: &mut dyn FnMut() -> Decided,
    ) -> Option<Result<Identity, IdentityError>> {
        if token.is_empty() || token.len() > limits::TOKEN_BYTES_MAX {
            return Some(Err(IdentityError::Invalid));
        }
        let hash = hash_of(token);
        let mut state = self.state();
        let known = state.newer.get(&hash).or_else(|| state.older.get(&hash));
        if let Some(known) = known.filter(|known| known.until_ms > now.mono_ms) {
            return Some(verdict(known.said.as_ref(), claimed, now.unix));
        }
        if state.waiters >= limits::IDENTIFY_WAITING_MAX {
            return Some(Err(IdentityError::Unavailable));
        }
        state.waiters += 1;
        let decided = later();
        let until_ms = now.mono_ms + limits::IDENTIFY_MS_MAX;
        state.order.push_back((until_ms, hash));
        let waiting = state.waiting.entry(hash).or_default();
        waiting.push(Waiting {
            until_ms,
            claimed,
            decided,
        });
        if waiting.len() == 1 {
            let token = token.to_owned();
            state.questions.push_back(Question { hash, token });
        }
        None
    }

    /// The next question that somebody waits for. Each that is taken is answered by
    /// [`Introspections::answered`].
    pub fn question(&self) -> Option<Question> {
        let mut state = self.state();
        while let Some(question) = state.questions.pop_front() {
            if state.waiting.contains_key(&question.hash) {
                return Some(question);
            }
        }
        None
    }

    /// When somebody has waited long enough, ms.
    pub fn due_ms(&self) -> u64 {
        self.state()
            .order
            .front()
            .map_or(u64::MAX, |(until, _)| *until)
    }

    /// Who has waited long enough.
    #[must_use]
    pub fn expire(&self, now: Times) -> Vec<Told> {
        let mut state = self.state();
        let mut told = Vec::new();
        while let Some((_, hash)) = state.order.pop_front_if(|(until, _)| *until <= now.mono_ms) {
            let Some(waiting) = state.waiting.remove(&hash) else {
                continue;
            };
            let (late, rest): (Vec<_>, Vec<_>) = waiting
                .into_iter()
                .partition(|one| one.until_ms <= now.mono_ms);
            state.waiters -= late.len();
            if !rest.is_empty() {
                state.waiting.insert(hash, rest);
            }
            told.extend(
                late.into_iter()
                    .map(|one| (one.decided, Err(IdentityError::Unavailable))),
            );
        }
        told
    }

    /// The issuer answered, with this body; `None`: it did not. Who is told what.
    #[must_use]
    pub fn answered(&self, question: &Question, body: Option<&[u8]>, now: Times) -> Vec<Told> {
        let answer = body.and_then(|body| serde_json::from_slice::<Answer>(body).ok());
        let said = answer.map(|answer| self.good(answer, now.unix));
        let mut state = self.state();
        if let Some(said) = &said {
            if state.newer.len() >= limits::INTROSPECTED_MAX / 2 {
                state.older = std::mem::take(&mut state.newer);
            }
            let known = Known {
                said: said.clone(),
                until_ms: now.mono_ms + limits::INTROSPECTED_MS,
            };
            state.newer.insert(question.hash, known);
        }
        let waiting = state.waiting.remove(&question.hash).unwrap_or_default();
        state.waiters -= waiting.len();
        drop(state);
        let told = |one: Waiting| {
            let verdict = match &said {
                Some(said) => verdict(said.as_ref(), one.claimed, now.unix),
                None => Err(IdentityError::Unavailable),
            };
            (one.decided, verdict)
        };
        waiting.into_iter().map(told).collect()
    }

    /// What is to be kept of an answer; `None`: the token is no good.
    fn good(&self, answer: Answer, now: UnixMs) -> Option<Answered> {
        // What the issuer does not say it has checked itself.
        let ours = answer.iss.is_none_or(|iss| iss == self.issuer.issuer)
            && (answer.aud).is_none_or(|aud| aud.has(&self.issuer.audience));
        let skew_ms = limits::TOKEN_SKEW_S * 1_000;
        let begun = (answer.nbf).is_none_or(|nbf| nbf.saturating_mul(1_000) <= now.0 + skew_ms);
        (answer.active && ours && begun).then_some(Answered {
            sub: answer.sub,
            exp: answer.exp,
            iat: answer.iat,
            name: answer.name,
            picture: answer.picture,
            sid: answer.sid,
        })
    }
}

fn verdict(
    said: Option<&Answered>,
    claimed: Claimed,
    now: UnixMs,
) -> Result<Identity, IdentityError> {
    let Some(said) = said.cloned() else {
        return Err(IdentityError::Invalid);
    };
    if let Some(claimed) = claimed {
        let id = claimed.user.to_string();
        let same = said.sub.is_none_or(|sub| sub.eq_ignore_ascii_case(&id));
        return match same {
            true => Ok(claimed),
            false => Err(IdentityError::Invalid),
        };
    }
    let (Some(sub), Some(exp)) = (said.sub, said.exp) else {
        return Err(IdentityError::Invalid);
    };
    let said = Said {
        sub,
        exp,
        nbf: None,
        iat: said.iat,
        name: said.name,
        picture: said.picture,
        sid: said.sid,
    };
    said.identity(now)
}
