//! Webhooks of the Map Service and of the Main App: who sent them is checked, what came is kept, and then it is done,
//! once in effect.
//!
//! Invariants: nothing is kept or done before the signature is right; a webhook is kept before anything is done for
//! it; what was done and answered is answered again as it was, and not done again; everything that is done may be
//! done twice. Who may not be helped is answered so that they stop asking.

use super::problem::{Problem, too_large};
use super::shard_client::ask_shard;
use super::store_client::StoreClient;
use super::{Serves, requests};
use crate::chat::port::intake::{
    IntakeAnswer, IntakeCall, ProfileTold, Webhook, WebhookAnswer, WebhookKept,
};
use crate::chat::port::upkeep::{Upkeep, UpkeepDone};
use crate::chat::port::{
    Op, OpKind, ServiceAnswer, ServiceAsk, SignIn, SignedIn, StoreAnswer, StoreCall, StoreError,
};
use crate::identity::{WebhookHead, WebhookRefused, WebhookSecrets};
use crate::limits;
use crate::protocol::view::RoomKind;
use crate::protocol::webhook::{
    self, AccountChange, AccountEvent, Heard, InviteAccepted, WebhookApplied, WebhookInvited,
    WebhookSource,
};
use crate::protocol::{CloseCode, ErrorCode, UnixMs, UserId};
use axum::body::Bytes;
use axum::extract::rejection::BytesRejection;
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde::Deserialize;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::Notify;

/// Longest wait for a shard.
const ANSWER_MAX: Duration = Duration::from_millis(limits::ASK_MS_MAX + 1_000);
/// Other nodes look this often for profiles that were told here, and this one for theirs.
const LOOK_EVERY: Duration = Duration::from_millis(1_000);
/// They look back so far: what was written earlier is committed by then, ms.
const LOOK_BACK_MS: u64 = 5_000;
/// Profiles of one look.
const PROFILES_MAX: usize = 200;

/// What the webhooks need of the node.
#[derive(Clone)]
pub struct WebhookParts {
    /// Of the Map Service, if it sends any.
    pub map: Option<Arc<WebhookSecrets>>,
    /// Of the Main App, if it sends any.
    pub main_app: Option<Arc<WebhookSecrets>>,
    /// The shards.
    pub shards: u16,
    /// Asks one of them.
    pub serves: Arc<Serves>,
    /// Whether other nodes may be told of profiles.
    pub has_peers: bool,
    /// Told when an account is to be erased.
    pub erasures: Arc<Notify>,
}

/// Takes webhooks.
#[derive(Clone)]
pub struct Webhooks {
    parts: WebhookParts,
    store: StoreClient,
    /// A profile was told here.
    told: Arc<Notify>,
}

/// What is done for a webhook: its answer; or why not yet.
type Done = Result<WebhookAnswer, Problem>;

impl Webhooks {
    /// On this store.
    pub fn new(parts: WebhookParts, store: StoreClient) -> Webhooks {
        Webhooks {
            parts,
            store,
            told: Arc::default(),
        }
    }

    /// Whether anybody says what becomes of accounts.
    pub fn hears_of_accounts(&self) -> bool {
        self.parts.main_app.is_some()
    }

    /// Answers a webhook.
    ///
    /// # Errors
    /// The signature is not right, or it cannot be done now.
    pub async fn receive(
        &self,
        source: WebhookSource,
        headers: &HeaderMap,
        body: Result<Bytes, BytesRejection>,
    ) -> Result<Response, Problem> {
        let body = body.map_err(|rejection| match rejection.status() {
            StatusCode::PAYLOAD_TOO_LARGE => too_large(),
            _ => Problem::new(ErrorCode::BadRequest, "the body did not come whole"),
        })?;
        let (id, signed_at) = self.signed(source, headers, &body)?;
        let webhook = Webhook {
            source,
            id,
            signed_at,
            body: body.to_vec(),
        };
        let IntakeAnswer::Taken(taken) = self.intake(IntakeCall::Take(webhook.clone())).await?
        else {
            return Err(another_question());
        };
        if !taken.is_same {
            let detail = "this webhook-id was used for another body";
            return Err(Problem::new(ErrorCode::IdempotencyConflict, detail));
        }
        if let Some(answer) = taken.answer {
            return Ok(response(answer));
        }
        Ok(response(self.finish(&webhook, false).await?))
    }

    /// Does a webhook again that was kept.
    ///
    /// # Errors
    /// There is none of this id, or it cannot be done now.
    pub async fn replay(&self, source: WebhookSource, id: &str) -> Result<WebhookAnswer, Problem> {
        let Some(kept) = self.kept(source, id).await? else {
            let detail = "no such webhook was kept";
            return Err(Problem::new(ErrorCode::NotFound, detail));
        };
        self.finish(&kept.webhook, true).await
    }

    /// A webhook that was kept.
    ///
    /// # Errors
    /// The store does not answer.
    pub async fn kept(
        &self,
        source: WebhookSource,
        id: &str,
    ) -> Result<Option<Box<WebhookKept>>, Problem> {
        let call = IntakeCall::Webhook(source, id.to_owned());
        match self.intake(call).await? {
            IntakeAnswer::Webhook(kept) => Ok(kept),
            _ => Err(another_question()),
        }
    }

    /// Webhooks that were kept, the newest first.
    ///
    /// # Errors
    /// The store does not answer.
    pub async fn all_kept(
        &self,
        is_open: bool,
        before: Option<UnixMs>,
        limit: usize,
    ) -> Result<Vec<WebhookKept>, Problem> {
        let call = IntakeCall::Webhooks {
            is_open,
            before,
            limit,
        };
        match self.intake(call).await? {
            IntakeAnswer::Webhooks(kept) => Ok(kept),
            _ => Err(another_question()),
        }
    }

    /// Who signed a webhook, and when: its id and time.
    fn signed(
        &self,
        source: WebhookSource,
        headers: &HeaderMap,
        body: &[u8],
    ) -> Result<(String, UnixMs), Problem> {
        let secrets = match source {
            WebhookSource::Map => &self.parts.map,
            WebhookSource::MainApp => &self.parts.main_app,
        };
        let Some(secrets) = secrets else {
            return Err(unsigned("no secret of this sender is set here"));
        };
        let one = |name: &str| {
            let mut given = headers.get_all(name).iter();
            match (
                given.next().and_then(|value| value.to_str().ok()),
                given.next(),
            ) {
                (Some(value), None) => Ok(value),
                _ => Err(unsigned("each of the webhook headers is needed, once")),
            }
        };
        let head = WebhookHead {
            id: one("webhook-id")?,
            timestamp: one("webhook-timestamp")?,
            signatures: one("webhook-signature")?,
        };
        let signed = secrets.check(head, body, requests::now());
        let signed_at = signed.map_err(|refused| {
            unsigned(match refused {
                WebhookRefused::Headers => "the webhook headers are not those of the standard",
                WebhookRefused::Time => "it was signed more than 300 s ago, or will be",
                WebhookRefused::Signature => "none of its signatures is right",
            })
        })?;
        Ok((head.id.to_owned(), signed_at))
    }

    /// Does what a webhook says and takes note of the answer.
    async fn finish(&self, webhook: &Webhook, is_replay: bool) -> Done {
        let answer = match webhook.source {
            WebhookSource::Map => self.of_map(webhook).await?,
            WebhookSource::MainApp => self.of_main_app(webhook).await?,
        };
        let noted = IntakeCall::Answered {
            source: webhook.source,
            id: webhook.id.clone(),
            answer: answer.clone(),
            is_replay,
        };
        // It is done; who sends it again has it done again, which changes nothing.
        if self.intake(noted).await.is_err() {
            tracing::warn!(
                source = webhook.source.name(),
                "what a webhook was answered was not noted"
            );
        }
        Ok(answer)
    }

    async fn of_map(&self, webhook: &Webhook) -> Done {
        match webhook::of_map(&webhook.body) {
            Err(malformed) => Ok(refused(malformed)),
            Ok(Heard::OtherType) => Ok(answered(&WebhookInvited {
                room_id: None,
                created: false,
            })),
            Ok(Heard::Event(invite)) => self.invited(invite).await,
        }
    }

    /// Two are to meet: they get a room.
    async fn invited(&self, invite: InviteAccepted) -> Done {
        let room = invite.room();
        let none = WebhookInvited {
            room_id: None,
            created: false,
        };
        let are_there = self.make_known(&[invite.inviter, invite.invitee]).await?;
        if !are_there {
            return Ok(answered(&none));
        }
        let op = Op {
            actor: invite.inviter,
            room,
            kind: OpKind::CreateRoom {
                kind: RoomKind::Group,
                title: invite.title,
                members: vec![invite.invitee],
            },
        };
        let shard = room.bucket() % self.parts.shards.max(1);
        let ServiceAnswer::Reply(reply) = self.serve(shard, ServiceAsk::Write(op)).await? else {
            return Err(another_question());
        };
        let there = |created| WebhookInvited {
            room_id: Some(room),
            created,
        };
        let invited = match reply_of(&reply)? {
            Ok(created) => there(created),
            // The room of the invite is there, and was opened otherwise: by an earlier word of the same invite.
            Err(ErrorCode::IdempotencyConflict) => there(false),
            // One of the two blocks the other, or is in too many rooms: asking again is of no use.
            Err(ErrorCode::Forbidden | ErrorCode::TooLarge) => none,
            Err(code) if code.temporary() => {
                return Err(Problem::new(code, "the room cannot be opened now"));
            }
            Err(code) => {
                tracing::error!(code = code.name(), "an invite's room was refused");
                return Err(Problem::new(ErrorCode::Internal, "try again"));
            }
        };
        Ok(answered(&invited))
    }

    /// Makes sure that these users are there, if only by their ids; false: one of them is gone for good.
    async fn make_known(&self, users: &[UserId]) -> Result<bool, Problem> {
        let stub = |user: &UserId| SignIn {
            user: *user,
            name: None,
            picture: None,
            resume: Vec::new(),
            describe_max: 0,
        };
        let stubs = users.iter().map(stub).collect();
        match self.store.call(StoreCall::SignIn(stubs)).await {
            Ok(StoreAnswer::SignIn(users)) => {
                let is_gone = |user: &Option<SignedIn>| {
                    user.as_ref().is_none_or(|user| {
                        let mut ends = user.ends.iter();
                        ends.any(|end| end.code == CloseCode::UserDeleted)
                    })
                };
                Ok(!users.iter().any(is_gone))
            }
            Ok(_) => Err(another_question()),
            Err(error) => Err(away(error)),
        }
    }

    async fn of_main_app(&self, webhook: &Webhook) -> Done {
        match webhook::of_main_app(&webhook.body) {
            Err(malformed) => Ok(refused(malformed)),
            Ok(Heard::OtherType) => Ok(answered(&WebhookApplied { applied: false })),
            Ok(Heard::Event(event)) => self.synced(event, webhook.signed_at).await,
        }
    }

    /// Something is said of an account.
    async fn synced(&self, event: AccountEvent, signed_at: UnixMs) -> Done {
        let at = event.at.unwrap_or(signed_at);
        let deleted = (event.change == AccountChange::Deleted).then_some(event.user);
        let call = IntakeCall::Sync { event, at };
        let IntakeAnswer::Synced { is_changed, ends } = self.intake(call).await? else {
            return Err(another_question());
        };
        // Also where nothing changed: who said it first may not have come to telling it.
        for end in ends {
            self.serve(0, ServiceAsk::End(end)).await?;
        }
        self.told.notify_one();
        if let Some(user) = deleted {
            // What was begun is gone on with, whatever happens now; what is done already is not done again.
            match self
                .store
                .call(StoreCall::Upkeep(Upkeep::EraseBegin(user)))
                .await
            {
                Ok(StoreAnswer::Upkeep(UpkeepDone::EraseState(_))) => {
                    self.parts.erasures.notify_one();
                }
                Ok(_) => return Err(another_question()),
                Err(error) => return Err(away(error)),
            }
        }
        Ok(answered(&WebhookApplied {
            applied: is_changed,
        }))
    }

    async fn intake(&self, call: IntakeCall) -> Result<IntakeAnswer, Problem> {
        match self.store.call(StoreCall::Intake(Box::new(call))).await {
            Ok(StoreAnswer::Intake(answer)) => Ok(*answer),
            Ok(_) => Err(another_question()),
            Err(error) => Err(away(error)),
        }
    }

    async fn serve(&self, shard: u16, ask: ServiceAsk) -> Result<ServiceAnswer, Problem> {
        Ok(ask_shard(&*self.parts.serves, ANSWER_MAX, shard, ask).await?)
    }

    /// Tells the connections of this node of profiles that the Main App told, on whichever node, for ever.
    pub async fn tell_profiles(self) {
        let mut since: Option<UnixMs> = None;
        let mut known: BTreeMap<UserId, u64> = BTreeMap::new();
        loop {
            match since {
                None => since = self.time().await,
                Some(after) => {
                    if let Some((until, seen)) = self.tell_after(after, &known).await {
                        since = Some(until);
                        known = seen;
                    }
                }
            }
            let wait = tokio::time::sleep(LOOK_EVERY);
            if self.parts.has_peers || since.is_none() {
                tokio::select! {
                    () = self.told.notified() => (),
                    () = wait => (),
                }
            } else {
                self.told.notified().await;
            }
        }
    }

    /// The store's time.
    async fn time(&self) -> Option<UnixMs> {
        let call = IntakeCall::Profiles {
            after: None,
            limit: 0,
        };
        match self.intake(call).await {
            Ok(IntakeAnswer::Profiles { now, .. }) => now,
            Ok(_) | Err(_) => None,
        }
    }

    /// Tells of profiles that were written about then or later and are not known: up to when, and all that were
    /// looked at.
    async fn tell_after(
        &self,
        after: UnixMs,
        known: &BTreeMap<UserId, u64>,
    ) -> Option<(UnixMs, BTreeMap<UserId, u64>)> {
        let mut seen = BTreeMap::new();
        let mut until = after;
        let begin = UnixMs(after.0.saturating_sub(LOOK_BACK_MS));
        let mut place = (begin, UserId(uuid::Uuid::max()));
        loop {
            let call = IntakeCall::Profiles {
                after: Some(place),
                limit: PROFILES_MAX,
            };
            let Ok(IntakeAnswer::Profiles { profiles, .. }) = self.intake(call).await else {
                return None;
            };
            let Some(last) = profiles.last() else {
                return Some((until, seen));
            };
            place = (last.at, last.user);
            until = until.max(last.at);
            let new: Arc<[ProfileTold]> = profiles
                .into_iter()
                .filter(|profile| {
                    seen.insert(profile.user, profile.version);
                    known.get(&profile.user) != Some(&profile.version)
                })
                .collect();
            if new.is_empty() {
                continue;
            }
            for shard in 0..self.parts.shards {
                let ask = ServiceAsk::Profiles(new.clone());
                self.serve(shard, ask).await.ok()?;
            }
        }
    }
}

/// The reply of a shard to an open room: whether it is new, or why not.
fn reply_of(reply: &str) -> Result<Result<bool, ErrorCode>, Problem> {
    #[derive(Deserialize)]
    struct Reply {
        #[serde(default)]
        data: Option<Opened>,
        #[serde(default)]
        error: Option<Refused>,
    }
    #[derive(Deserialize)]
    struct Opened {
        created: bool,
    }
    #[derive(Deserialize)]
    struct Refused {
        code: String,
    }
    match sonic_rs::from_str::<Reply>(reply) {
        Ok(Reply {
            error: Some(error), ..
        }) => {
            let code = ErrorCode::ALL.iter().find(|code| code.name() == error.code);
            Ok(Err(code.copied().unwrap_or(ErrorCode::Internal)))
        }
        Ok(Reply {
            data: Some(data), ..
        }) => Ok(Ok(data.created)),
        Ok(_) | Err(_) => Err(another_question()),
    }
}

fn answered<T: serde::Serialize>(body: &T) -> WebhookAnswer {
    WebhookAnswer {
        status: 200,
        body: serde_json::to_string(body).unwrap_or_default(),
    }
}

/// The answer to what is signed and makes no sense: it never will.
fn refused(malformed: &'static str) -> WebhookAnswer {
    let problem = Problem::new(ErrorCode::BadRequest, malformed);
    WebhookAnswer {
        status: 400,
        body: problem.body(),
    }
}

fn response(answer: WebhookAnswer) -> Response {
    let status = StatusCode::from_u16(answer.status).unwrap_or_default();
    let kind = match status.is_success() {
        true => "application/json",
        false => "application/problem+json",
    };
    let headers = [
        (header::CONTENT_TYPE, kind),
        (header::CACHE_CONTROL, "no-store"),
    ];
    (status, headers, answer.body).into_response()
}

fn unsigned(detail: &'static str) -> Problem {
    Problem::new(ErrorCode::Unauthenticated, detail).header(header::WWW_AUTHENTICATE, "Signature")
}

fn away(error: StoreError) -> Problem {
    match error {
        StoreError::Overloaded => Problem::new(ErrorCode::Overloaded, "the store is busy"),
        StoreError::Unavailable(reason) => {
            tracing::warn!(reason, "a webhook: the store did not answer");
            Problem::new(ErrorCode::Unavailable, "the store is away")
        }
    }
}

fn another_question() -> Problem {
    tracing::error!("a webhook was answered another question");
    Problem::new(ErrorCode::Internal, "try again")
}
