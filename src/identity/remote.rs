//! Tokens of the Main App: by shared secrets, by its public keys, and, where that is wanted, by asking it about
//! each. What has to be fetched is fetched by one task, beside which nobody waits who need not.
//!
//! Invariants: which kind of key a token is checked with is chosen by what it says, but each key is used with its
//! own algorithm only, so that choosing another kind is of no use to a forger; who is told a verdict is told
//! it from the task's thread.

use super::claims::Issuer;
use super::hs256::Hs256;
use super::introspection::{Introspections, Question};
use super::jwks::KeySet;
use super::keys::{Asked, Keys, Times, Told};
use crate::chat::port::{Decided, Identify, Identity, IdentityError};
use crate::limits;
use crate::outbound::{Client, Endpoint};
use crate::protocol::UnixMs;
use hyper::Method;
use hyper::header::{AUTHORIZATION, CONTENT_TYPE, HeaderName, HeaderValue};
use jsonwebtoken::Algorithm;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};
use tokio::sync::Notify;
use tokio::task::JoinSet;

/// How tokens are checked.
pub struct RemoteOptions {
    /// Who issues them, and for whom.
    pub issuer: Issuer,
    /// Shared secrets, if there are any.
    pub secrets: Option<Hs256>,
    /// Where the public keys are.
    pub jwks: Option<Endpoint>,
    /// Where to ask about a token.
    pub introspection: Option<Endpoint>,
    /// Who we are to the Main App: sent as `Authorization: Bearer`.
    pub service_token: Option<String>,
    /// The wall clock.
    pub clock: Arc<dyn Fn() -> UnixMs + Send + Sync>,
}

/// Checks the tokens of the Main App.
#[derive(Clone)]
pub struct Remote(Arc<Shared>);

struct Shared {
    options: RemoteOptions,
    keys: Option<Keys>,
    introspections: Option<Introspections>,
    started: Instant,
    wake: Notify,
    /// The last question about a token was not answered.
    is_silent: AtomicBool,
}

impl Shared {
    fn times(&self) -> Times {
        Times {
            mono_ms: self.started.elapsed().as_millis() as u64,
            unix: (self.options.clock)(),
        }
    }

    /// Asks about a token that is good by itself, if that is wanted.
    fn introspect(
        &self,
        token: &str,
        claimed: Option<Identity>,
        now: Times,
        later: &mut dyn FnMut() -> Decided,
    ) -> Option<Result<Identity, IdentityError>> {
        let Some(introspections) = &self.introspections else {
            return Some(claimed.ok_or(IdentityError::Invalid));
        };
        let verdict = introspections.check(token, claimed, now, later);
        if verdict.is_none() {
            self.wake.notify_one();
        }
        verdict
    }
}

impl Remote {
    /// Checks tokens so. What has to be fetched is fetched by [`Remote::run`].
    pub fn new(options: RemoteOptions) -> Remote {
        let issuer = || options.issuer.clone();
        Remote(Arc::new(Shared {
            keys: options.jwks.is_some().then(|| Keys::new(issuer())),
            introspections: (options.introspection.is_some())
                .then(|| Introspections::new(issuer())),
            options,
            started: Instant::now(),
            wake: Notify::new(),
            is_silent: AtomicBool::new(false),
        }))
    }

    /// Fetches what is to be fetched, for ever.
    pub async fn run(self, client: Client) {
        let shared = &self.0;
        let mut fetches = JoinSet::new();
        let mut questions = JoinSet::new();
        loop {
            let now = shared.times();
            if let (Some(keys), Some(endpoint)) = (&shared.keys, &shared.options.jwks) {
                tell(keys.expire(now));
                if keys.begin(now) {
                    let (client, endpoint) = (client.clone(), endpoint.clone());
                    fetches.spawn(async move { fetch_keys(&client, &endpoint).await });
                }
            }
            if let Some(introspections) = &shared.introspections {
                tell(introspections.expire(now));
                while questions.len() < limits::INTROSPECTIONS_MAX
                    && let Some(question) = introspections.question()
                {
                    questions.spawn(ask(shared.clone(), client.clone(), question));
                }
            }
            let keys_ms = shared.keys.as_ref().map_or(u64::MAX, Keys::due_ms);
            let asked = shared.introspections.as_ref();
            let due_ms = keys_ms.min(asked.map_or(u64::MAX, Introspections::due_ms));
            let wait = Duration::from_millis(due_ms.saturating_sub(now.mono_ms).min(60_000));
            tokio::select! {
                () = shared.wake.notified() => (),
                () = tokio::time::sleep(wait) => (),
                Some(fetched) = fetches.join_next() => {
                    let fetched = fetched.unwrap_or(None);
                    if let Some(keys) = &shared.keys {
                        tell(keys.end(shared.times(), fetched));
                    }
                }
                Some(_) = questions.join_next() => (),
            }
        }
    }
}

fn tell(told: Vec<Told>) {
    for (decided, verdict) in told {
        decided(verdict);
    }
}

async fn fetch_keys(client: &Client, endpoint: &Endpoint) -> Option<KeySet> {
    let answer = client.call(endpoint, Method::GET, &[], Vec::new()).await;
    let problem = match answer {
        Ok(answer) if answer.status == 200 => match KeySet::parse(&answer.body) {
            Ok(keys) => {
                tracing::debug!(keys = keys.len(), "the issuer's keys were fetched");
                return Some(keys);
            }
            Err(problem) => problem.to_string(),
        },
        Ok(answer) => format!("its answer is {}", answer.status),
        Err(failure) => failure.to_owned(),
    };
    tracing::warn!(
        problem,
        "the issuer's keys cannot be fetched; those known stay"
    );
    None
}

async fn ask(shared: Arc<Shared>, client: Client, question: Question) {
    let (Some(introspections), Some(endpoint)) =
        (&shared.introspections, &shared.options.introspection)
    else {
        return;
    };
    let mut headers: Vec<(HeaderName, HeaderValue)> = vec![(
        CONTENT_TYPE,
        HeaderValue::from_static("application/x-www-form-urlencoded"),
    )];
    if let Some(token) = &shared.options.service_token
        && let Ok(mut value) = HeaderValue::from_str(&format!("Bearer {token}"))
    {
        value.set_sensitive(true);
        headers.push((AUTHORIZATION, value));
    }
    let body = format!(
        "token={}&token_type_hint=access_token",
        form_encoded(&question.token)
    );
    let answer = client.call(endpoint, Method::POST, &headers, body.into_bytes());
    let answer = match answer.await {
        Ok(answer) if answer.status == 200 => Ok(answer.body),
        Ok(answer) => Err(format!("its answer is {}", answer.status)),
        Err(failure) => Err(failure.to_owned()),
    };
    // Once when it begins: there may be many.
    let was_silent = shared.is_silent.swap(answer.is_err(), Ordering::Relaxed);
    if let Err(problem) = &answer
        && !was_silent
    {
        tracing::warn!(problem, "the issuer cannot be asked about tokens");
    }
    let answer = answer.ok();
    tell(introspections.answered(&question, answer.as_deref(), shared.times()));
}

/// `application/x-www-form-urlencoded` of one value.
fn form_encoded(text: &str) -> String {
    let mut encoded = String::with_capacity(text.len());
    for byte in text.bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'_' | b'.' => {
                encoded.push(char::from(byte));
            }
            _ => encoded.push_str(&format!("%{byte:02X}")),
        }
    }
    encoded
}

/// Whether a token says that it is signed with a shared secret.
fn says_hs256(token: &str) -> bool {
    token.len() <= limits::TOKEN_BYTES_MAX
        && jsonwebtoken::decode_header(token).is_ok_and(|header| header.alg == Algorithm::HS256)
}

impl Identify for Remote {
    fn identify(
        &self,
        token: &str,
        now: UnixMs,
        later: &mut dyn FnMut() -> Decided,
    ) -> Option<Result<Identity, IdentityError>> {
        let shared = &self.0;
        let times = Times {
            unix: now,
            ..shared.times()
        };
        let by_itself = match (&shared.options.secrets, &shared.keys) {
            (None, None) => return shared.introspect(token, None, times, later),
            (Some(secrets), None) => secrets.check(token, now),
            (Some(secrets), Some(_)) if says_hs256(token) => secrets.check(token, now),
            (Some(_) | None, Some(keys)) => {
                // What is known of its key comes first, and then what the issuer says.
                let chained = shared.clone();
                let given = token.to_owned();
                let mut then = || -> Decided {
                    let decided = later();
                    let (shared, token) = (chained.clone(), given.clone());
                    Box::new(move |verdict| shared.go_on(&token, verdict, decided))
                };
                match keys.check(token, times, &mut then) {
                    Asked::Now(verdict) => verdict,
                    Asked::Waits { sooner } => {
                        if sooner {
                            shared.wake.notify_one();
                        }
                        return None;
                    }
                }
            }
        };
        match by_itself {
            Ok(identity) => shared.introspect(token, Some(identity), times, later),
            Err(error) => Some(Err(error)),
        }
    }
}

impl Shared {
    /// The verdict on the token by itself came later.
    fn go_on(&self, token: &str, verdict: Result<Identity, IdentityError>, decided: Decided) {
        let identity = match verdict {
            Ok(identity) => identity,
            Err(error) => return decided(Err(error)),
        };
        let mut decided = Some(decided);
        let mut later = || -> Decided {
            match decided.take() {
                Some(decided) => decided,
                // It is asked for once.
                None => Box::new(|_| ()),
            }
        };
        let verdict = self.introspect(token, Some(identity), self.times(), &mut later);
        if let (Some(verdict), Some(decided)) = (verdict, decided) {
            decided(verdict);
        }
    }
}
