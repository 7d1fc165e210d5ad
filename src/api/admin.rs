//! The Admin API: for those who run the service, with a service token.
//!
//! Invariants: no rule of chat stands here: the store and the shards are asked. What changes something, or
//! reads messages, is noted in the audit trail, with its effect or before it. Who has no token learns nothing.
//!
//! To add an endpoint: see [`crate::protocol::admin`], and an arm in [`Admin::done`].

mod sent;

use super::export::Exports;
use super::problem::Problem;
use super::request_id::RequestId;
use super::requests::{self, INVALID, bearer, body_of, json, path_values, query_values};
use super::requests::{unauthenticated, wants_json};
use super::serve::Peer;
use super::shard_client::ask_shard;
use super::store_client::StoreClient;
use super::tokens::Failures;
use super::transfers::Transfers;
use super::webhooks::Webhooks;
use super::{AdminParts, NodeView};
use crate::blob::Blob;
use crate::chat::port::admin::{AdminAnswer, AdminCall, AuditEntry, PageRead};
use crate::chat::port::hooks::HookCall;
use crate::chat::port::intake::WebhookKept;
use crate::chat::port::upkeep::{EraseState, Upkeep, UpkeepDone};
use crate::chat::port::{
    ConnectionSeen, ConnectionsPage, ConnectionsRead, HistoryPage, MessageChange, Op, OpKind,
    Refusal, ServiceAnswer, ServiceAsk, StoreAnswer, StoreCall, StoreError,
};
use crate::limits;
use crate::protocol::admin::{
    AdminConnection, AdminConnectionClosed, AdminConnections, AdminConnectionsList, AdminDraining,
    AdminErasure, AdminErasureState, AdminReport, AdminReportAction, AdminReportResolve,
    AdminReportResolved, AdminRequest, AdminRoomMessages, AdminRoomRetention,
    AdminRoomRetentionSet, AdminUser, AdminUserDisconnected, AdminWebhook, AdminWebhookReplayed,
    AdminWebhooks, ReportKey, SERVICE,
};
use crate::protocol::ending::{EndsWhich, SessionsEnd};
use crate::protocol::http::{self, Bound, Given};
use crate::protocol::network::forwarded_for;
use crate::protocol::text::Text;
use crate::protocol::{CloseCode, ErrorCode, RoomId, UserId};
use axum::body::Bytes;
use axum::extract::RawPathParams;
use axum::extract::rejection::{BytesRejection, RawPathParamsRejection};
use axum::extract::{Extension, State};
use axum::http::{HeaderMap, StatusCode, Uri};
use axum::response::Response;
use axum::routing::MethodRouter;
use serde::Serialize;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};
use uuid::Uuid;

/// Longest wait for the store: it answers before, unless it does not run.
const STORE_MAX: Duration = Duration::from_secs(5);
/// Longest wait for a shard.
const SHARD_MAX: Duration = Duration::from_millis(limits::ASK_MS_MAX + 1_000);
/// The request that is answered with no JSON.
const EXPORT: &str = "admin.users.export";
/// How a connection ends that those who run the service close: it may come back, after a while.
const DISCONNECTED: CloseCode = CloseCode::Draining;

/// The Admin API of a node.
pub struct Admin {
    parts: AdminParts,
    failures: Failures,
    node: Arc<dyn NodeView>,
    store: StoreClient,
    webhooks: Webhooks,
    exports: Exports,
}

/// Who asks.
#[derive(Clone, Debug)]
struct Caller {
    /// The fingerprint of the token.
    who: String,
    request_id: String,
    node: String,
}

impl Caller {
    fn entry(
        &self,
        act: &'static str,
        target: Option<String>,
        detail: Option<&Text>,
    ) -> AuditEntry {
        AuditEntry {
            id: Uuid::now_v7(),
            who: self.who.clone(),
            node: self.node.clone(),
            request_id: self.request_id.clone(),
            act,
            target,
            detail: detail.map(|text| text.to_string()),
        }
    }
}

/// All paths of the Admin API, each with its methods.
pub(super) fn routes() -> Vec<(&'static str, MethodRouter<Arc<super::routes::Shared>>)> {
    let mut routes: Vec<(&'static str, MethodRouter<_>)> = Vec::new();
    for bound in http::bound_admin() {
        let (path, method) = (bound.endpoint.path, requests::filter(bound.endpoint.method));
        let bound = Arc::new(bound);
        let handler = move |State(shared): State<Arc<super::routes::Shared>>,
                            peer: Option<Extension<Peer>>,
                            transfers: Option<Extension<Transfers>>,
                            Extension(id): Extension<RequestId>,
                            path: Result<RawPathParams, RawPathParamsRejection>,
                            uri: Uri,
                            headers: HeaderMap,
                            body: Result<Bytes, BytesRejection>| {
            let bound = bound.clone();
            async move {
                let Some(admin) = &shared.admin else {
                    return Err(Problem::new(ErrorCode::NotFound, "nothing is here"));
                };
                let caller = admin.caller(peer.map(|peer| peer.0.0), &id, &headers)?;
                if bound.endpoint.request != EXPORT {
                    wants_json(&headers)?;
                }
                let body = body_of(&bound, body, &headers)?;
                let request = request(&bound, &path, &uri, &body)?;
                if let AdminRequest::UserExport(named) = &request {
                    let transfers = transfers.map(|it| it.0).unwrap_or_default();
                    return admin.export(&caller, named.user_id, &transfers).await;
                }
                admin.done(&caller, bound.endpoint.request, request).await
            }
        };
        match routes.iter_mut().find(|(own, _)| *own == path) {
            Some((_, router)) => *router = std::mem::take(router).on(method, handler),
            None => routes.push((path, MethodRouter::new().on(method, handler))),
        }
    }
    routes
}

fn request(
    bound: &Bound,
    path: &Result<RawPathParams, RawPathParamsRejection>,
    uri: &Uri,
    body: &[u8],
) -> Result<AdminRequest, Problem> {
    let read = || {
        let (path, query) = (path_values(path)?, query_values(uri)?);
        bound.admin_request(&Given {
            path: &path,
            query: &query,
            body,
            key: None,
        })
    };
    read().map_err(|refused| Problem::new(refused.code, refused.message))
}

impl Admin {
    /// That of this node.
    pub fn new(
        parts: AdminParts,
        node: Arc<dyn NodeView>,
        store: StoreClient,
        webhooks: Webhooks,
        blob: Blob,
    ) -> Admin {
        Admin {
            webhooks,
            exports: Exports::new(store.clone(), blob),
            failures: Failures::new(parts.failures_per_min),
            parts,
            node,
            store,
        }
    }

    /// Who asks, if they may.
    fn caller(
        &self,
        peer: Option<IpAddr>,
        id: &RequestId,
        headers: &HeaderMap,
    ) -> Result<Caller, Problem> {
        let address = self.address(peer, headers);
        let now = Instant::now();
        if let Some(wait) = self.failures.wait(address, now) {
            let detail = "too many wrong tokens from this address";
            let wait_ms = u64::try_from(wait.as_millis()).unwrap_or(u64::MAX);
            return Err(Problem::new(ErrorCode::RateLimited, detail).retry_after_ms(Some(wait_ms)));
        }
        let token = bearer(headers)?;
        let Some(who) = self.parts.tokens.check(token) else {
            self.failures.count(address, now);
            let address = address.map(tracing::field::display);
            tracing::warn!(address, "a wrong service token");
            return Err(unauthenticated("the token is not accepted", INVALID));
        };
        Ok(Caller {
            who,
            request_id: id.to_string(),
            node: self.node.name().to_owned(),
        })
    }

    /// Where a request comes from: of one behind a proxy of ours, what that says.
    fn address(&self, peer: Option<IpAddr>, headers: &HeaderMap) -> Option<IpAddr> {
        let peer = peer?;
        if !self.parts.trusted.iter().any(|own| own.contains(peer)) {
            return Some(peer);
        }
        let lines = headers.get_all("x-forwarded-for").iter();
        let lines: Vec<&str> = lines.filter_map(|line| line.to_str().ok()).collect();
        forwarded_for(lines.into_iter(), &self.parts.trusted).or(Some(peer))
    }

    /// Does what is asked.
    async fn done(
        &self,
        caller: &Caller,
        act: &'static str,
        request: AdminRequest,
    ) -> Result<Response, Problem> {
        match request {
            AdminRequest::UsersList(list) => {
                let page = page(list.query, list.cursor, list.limit)?;
                match self.ask_store(AdminCall::Users(page)).await? {
                    AdminAnswer::Users(users) => Ok(told(&users.map_err(refused)?)),
                    _ => Err(confused()),
                }
            }
            AdminRequest::UserGet(named) => self.user(named.user_id).await,
            AdminRequest::UserDisconnect(asked) => {
                is_short(asked.reason.as_ref())?;
                let target = Some(asked.user_id.to_string());
                let entry = caller.entry(act, target, asked.reason.as_ref());
                self.end_sessions(asked.user_id, DISCONNECTED, entry).await
            }
            AdminRequest::UserErase(asked) => {
                is_short(asked.reason.as_ref())?;
                let target = Some(asked.user_id.to_string());
                self.note(caller.entry(act, target, asked.reason.as_ref()))
                    .await?;
                self.erase(asked.user_id).await
            }
            AdminRequest::UserErasure(named) => {
                match self.erasure(Upkeep::EraseState(named.user_id)).await? {
                    EraseState::None => Err(no("erasure")),
                    state => Ok(erasure(named.user_id, state)),
                }
            }
            AdminRequest::UserExport(_) => Err(confused()),
            AdminRequest::RoomsList(list) => {
                let page = page(list.query, list.cursor, list.limit)?;
                match self.ask_store(AdminCall::Rooms(page)).await? {
                    AdminAnswer::Rooms(rooms) => Ok(told(&rooms.map_err(refused)?)),
                    _ => Err(confused()),
                }
            }
            AdminRequest::RoomGet(named) => {
                match self.ask_store(AdminCall::Room(named.room_id)).await? {
                    AdminAnswer::Room(Some(room)) => Ok(told(&*room)),
                    AdminAnswer::Room(None) => Err(no("room")),
                    _ => Err(confused()),
                }
            }
            AdminRequest::RoomRetention(asked) => self.set_retention(caller, act, asked).await,
            AdminRequest::RoomMessages(asked) => self.messages(caller, act, asked).await,
            AdminRequest::ConnectionsList(list) => self.list_connections(list).await,
            AdminRequest::ConnectionDisconnect(asked) => {
                is_short(asked.reason.as_ref())?;
                let name = asked.connection_id.to_string();
                let target = Some(shortened(&name));
                self.note(caller.entry(act, target, asked.reason.as_ref()))
                    .await?;
                self.close_connection(name).await
            }
            AdminRequest::ReportsList(list) => {
                let page = page(None, list.cursor, list.limit)?;
                let filter = list.state.unwrap_or_default();
                match self.ask_store(AdminCall::Reports(filter, page)).await? {
                    AdminAnswer::Reports(reports) => Ok(told(&reports.map_err(refused)?)),
                    _ => Err(confused()),
                }
            }
            AdminRequest::ReportResolve(asked) => self.resolve(caller, act, asked).await,
            AdminRequest::AuditList(list) => {
                let page = page(None, list.cursor, list.limit)?;
                match self.ask_store(AdminCall::Audit(page)).await? {
                    AdminAnswer::Audit(audit) => Ok(told(&audit.map_err(refused)?)),
                    _ => Err(confused()),
                }
            }
            AdminRequest::WebhooksList(list) => {
                let limit = limit_of(list.limit, limits::ADMIN_PAGE)?;
                let is_open = list.open.unwrap_or(false);
                let kept = self.webhooks.all_kept(is_open, list.before, limit);
                Ok(told(&AdminWebhooks {
                    webhooks: kept.await?.into_iter().map(webhook_seen).collect(),
                }))
            }
            AdminRequest::WebhookReplay(asked) => {
                is_short(asked.reason.as_ref())?;
                let id = asked.webhook_id.to_string();
                let target = format!("{}/{id}", asked.source.name());
                self.note(caller.entry(act, Some(shortened(&target)), asked.reason.as_ref()))
                    .await?;
                let answer = self.webhooks.replay(asked.source, &id).await?;
                Ok(told(&AdminWebhookReplayed {
                    status: answer.status,
                    answer: answer.body,
                }))
            }
            AdminRequest::HooksList(list) => self.list_hooks(list).await,
            AdminRequest::HookReplay(asked) => {
                is_short(asked.reason.as_ref())?;
                let name = asked.webhook_id.to_string();
                let id = name
                    .strip_prefix("msg_")
                    .and_then(|id| Uuid::try_parse(id).ok());
                let id = id.ok_or_else(|| no("webhook"))?;
                self.note(caller.entry(act, Some(shortened(&name)), asked.reason.as_ref()))
                    .await?;
                self.change_hooks(HookCall::Replay(id)).await
            }
            AdminRequest::HooksEnable(asked) => {
                is_short(asked.reason.as_ref())?;
                self.note(caller.entry(act, None, asked.reason.as_ref()))
                    .await?;
                self.change_hooks(HookCall::Disable(false)).await
            }
            AdminRequest::Drain(asked) => {
                is_short(asked.reason.as_ref())?;
                let target = Some(caller.node.clone());
                self.note(caller.entry(act, target, asked.reason.as_ref()))
                    .await?;
                let drain_ms = (self.parts.drain)();
                Ok(told(&AdminDraining {
                    node: caller.node.clone(),
                    drain_ms,
                }))
            }
        }
    }

    async fn user(&self, id: UserId) -> Result<Response, Problem> {
        let kept = match self.ask_store(AdminCall::User(id)).await? {
            AdminAnswer::User(Some(kept)) => *kept,
            AdminAnswer::User(None) => return Err(no("user")),
            _ => return Err(confused()),
        };
        let (connections, _) = self
            .connections(Some(id), (0, 0), limits::ADMIN_SHOWN_MAX)
            .await?;
        let home = id.presence_bucket() % self.parts.shards;
        let seen = self.ask_shard(home, ServiceAsk::Presence(id)).await?;
        let ServiceAnswer::Presence(seen) = seen else {
            return Err(confused());
        };
        Ok(told(&AdminUser {
            kept,
            node: self.node.name().to_owned(),
            state: seen.state,
            last_seen_at: seen.last_seen_at,
            connections,
        }))
    }

    /// Ends the sessions of a user on all nodes: in the store, and then by telling everybody.
    async fn end_sessions(
        &self,
        user: UserId,
        code: CloseCode,
        entry: AuditEntry,
    ) -> Result<Response, Problem> {
        let call = AdminCall::EndSessions { user, code, entry };
        let end = match self.ask_store(call).await? {
            AdminAnswer::SessionsEnded(Some(end)) => end,
            AdminAnswer::SessionsEnded(None) => return Err(no("user")),
            _ => return Err(confused()),
        };
        // A hint: without it the shards find out when they compare.
        if let Err(problem) = self.ask_shard(0, ServiceAsk::End(end)).await {
            tracing::warn!(?problem, "an end of sessions is told later");
        }
        Ok(told(&AdminUserDisconnected {
            user_id: user,
            version: end.version,
            code: code as u16,
        }))
    }

    /// Takes an account away, and tells everybody; the rest is done by [`super::upkeep`].
    async fn erase(&self, user: UserId) -> Result<Response, Problem> {
        let state = self.erasure(Upkeep::EraseBegin(user)).await?;
        let end = SessionsEnd {
            user,
            version: SessionsEnd::FOR_GOOD,
            code: CloseCode::UserDeleted,
            which: EndsWhich::BeganBefore,
        };
        // A hint: without it the shards find out when they compare.
        if let Err(problem) = self.ask_shard(0, ServiceAsk::End(end)).await {
            tracing::warn!(?problem, "an erasure is told later");
        }
        self.parts.erasures.notify_one();
        Ok(erasure(user, state))
    }

    async fn erasure(&self, step: Upkeep) -> Result<EraseState, Problem> {
        let call = StoreCall::Upkeep(step);
        match self.store.call_within(STORE_MAX, call).await {
            Ok(StoreAnswer::Upkeep(UpkeepDone::EraseState(state))) => Ok(state),
            Ok(_) => Err(confused()),
            Err(_) => {
                let detail = "the store does not answer";
                Err(Problem::new(ErrorCode::Unavailable, detail))
            }
        }
    }

    /// Gives what there is of a user.
    async fn export(
        &self,
        caller: &Caller,
        id: UserId,
        transfers: &Transfers,
    ) -> Result<Response, Problem> {
        let turn = self.exports.turn()?;
        let kept = match self.ask_store(AdminCall::User(id)).await? {
            AdminAnswer::User(Some(kept)) => *kept,
            AdminAnswer::User(None) => return Err(no("user")),
            _ => return Err(confused()),
        };
        self.note(caller.entry(EXPORT, Some(id.to_string()), None))
            .await?;
        let (connections, _) = self
            .connections(Some(id), (0, 0), limits::ADMIN_SHOWN_MAX)
            .await?;
        let node = self.node.name();
        Ok(self
            .exports
            .begin(turn, &kept, node, &connections, transfers))
    }

    /// Says for how long a room keeps its messages; the rest is done by [`super::upkeep`].
    async fn set_retention(
        &self,
        caller: &Caller,
        act: &'static str,
        asked: AdminRoomRetentionSet,
    ) -> Result<Response, Problem> {
        let AdminRoomRetentionSet {
            room_id,
            days,
            reason,
        } = asked;
        is_short(reason.as_ref())?;
        let max = limits::RETENTION_DAYS_MAX;
        if days.is_some_and(|days| days > max) {
            let detail = format!("`days` is at most {max}");
            return Err(Problem::new(ErrorCode::BadRequest, detail));
        }
        let mut entry = caller.entry(act, Some(room_id.to_string()), reason.as_ref());
        let kept = days.map_or("as all rooms".to_owned(), |days| format!("{days} days"));
        entry.detail = Some(match entry.detail {
            Some(reason) => format!("{kept}: {reason}"),
            None => kept,
        });
        let call = AdminCall::SetRetention {
            room: room_id,
            days,
            entry,
        };
        let changed = match self.ask_store(call).await? {
            AdminAnswer::RetentionSet(Some(changed)) => changed,
            AdminAnswer::RetentionSet(None) => return Err(no("room")),
            _ => return Err(confused()),
        };
        self.parts.erasures.notify_one();
        Ok(told(&AdminRoomRetention {
            room_id,
            days,
            default_days: self.parts.retention_days,
            changed,
        }))
    }

    async fn messages(
        &self,
        caller: &Caller,
        act: &'static str,
        asked: AdminRoomMessages,
    ) -> Result<Response, Problem> {
        let AdminRoomMessages {
            room_id,
            before_seq,
            after_seq,
            around_seq,
            limit,
        } = asked;
        let (page, detail) = match (before_seq, after_seq, around_seq) {
            (None, None, None) => (HistoryPage::Newest, None),
            (Some(seq), None, None) => (HistoryPage::Before(seq), Some(format!("before {seq}"))),
            (None, Some(seq), None) => (HistoryPage::After(seq), Some(format!("after {seq}"))),
            (None, None, Some(seq)) => (HistoryPage::Around(seq), Some(format!("around {seq}"))),
            _ => {
                let detail = "at most one of `before_seq`, `after_seq`, `around_seq`";
                return Err(Problem::new(ErrorCode::BadRequest, detail));
            }
        };
        let mut entry = caller.entry(act, Some(room_id.to_string()), None);
        entry.detail = detail;
        self.note(entry).await?;
        let call = AdminCall::Messages {
            room: room_id,
            page,
            limit: limit_of(limit, limits::HISTORY_PAGE_MAX)?,
            bytes_max: limits::HISTORY_PAGE_BYTES_MAX,
        };
        match self.ask_store(call).await? {
            AdminAnswer::Messages(Some(history)) => Ok(told(&history)),
            AdminAnswer::Messages(None) => Err(no("room")),
            _ => Err(confused()),
        }
    }

    async fn list_connections(&self, list: AdminConnectionsList) -> Result<Response, Problem> {
        let from = match list.cursor.as_deref() {
            None => (0, 0),
            Some(cursor) => parse_place(cursor)
                .ok_or_else(|| Problem::new(ErrorCode::BadRequest, "no such cursor"))?,
        };
        let limit = limit_of(list.limit, limits::ADMIN_PAGE)?;
        let (connections, next) = self.connections(list.user_id, from, limit).await?;
        Ok(told(&AdminConnections {
            node: self.node.name().to_owned(),
            connections,
            next_cursor: next.map(|(shard, place)| format!("{shard}-{place}")),
        }))
    }

    /// Connections of this node from a shard and place on, and where the next ones are.
    async fn connections(
        &self,
        user: Option<UserId>,
        (mut shard, mut from): (u16, u32),
        limit: usize,
    ) -> Result<(Vec<AdminConnection>, Option<(u16, u32)>), Problem> {
        let mut found = Vec::new();
        while shard < self.parts.shards {
            let read = ConnectionsRead {
                user,
                from,
                limit: limit - found.len(),
            };
            let answer = self.ask_shard(shard, ServiceAsk::Connections(read)).await?;
            let ServiceAnswer::Connections(page) = answer else {
                return Err(confused());
            };
            let ConnectionsPage { connections, next } = page;
            found.extend(connections.into_iter().map(|seen| shown(shard, seen)));
            if let Some(place) = next {
                return Ok((found, Some((shard, place))));
            }
            (shard, from) = (shard + 1, 0);
        }
        Ok((found, None))
    }

    async fn close_connection(&self, name: String) -> Result<Response, Problem> {
        let gone = || no("connection on this node");
        let shard = name.split('-').next().and_then(|shard| shard.parse().ok());
        let shard = shard.filter(|shard| *shard < self.parts.shards);
        let shard: u16 = shard.ok_or_else(gone)?;
        let ask = ServiceAsk::Close {
            connection: name.clone(),
            code: DISCONNECTED,
        };
        match self.ask_shard(shard, ask).await? {
            ServiceAnswer::Closed(true) => Ok(told(&AdminConnectionClosed {
                connection_id: name,
                code: DISCONNECTED as u16,
            })),
            ServiceAnswer::Closed(false) => Err(gone()),
            _ => Err(confused()),
        }
    }

    async fn resolve(
        &self,
        caller: &Caller,
        act: &'static str,
        asked: AdminReportResolve,
    ) -> Result<Response, Problem> {
        is_short(asked.note.as_ref())?;
        let key = ReportKey::from_id(&asked.report_id).ok_or_else(|| no("report"))?;
        let entry = caller.entry(act, Some(key.to_id()), asked.note.as_ref());
        let (report, changed) = match asked.action {
            AdminReportAction::Dismiss => {
                let call = AdminCall::Dismiss { report: key, entry };
                match self.ask_store(call).await? {
                    AdminAnswer::Dismissed(Some(done)) => done,
                    AdminAnswer::Dismissed(None) => return Err(no("report")),
                    _ => return Err(confused()),
                }
            }
            AdminReportAction::DeleteMessage => {
                // Only what was reported is deleted this way.
                self.report(key).await?;
                let change = MessageChange::Moderate(Box::new(entry));
                let changed = self.change(key.room, key.message_seq, change).await?;
                (self.report(key).await?, changed)
            }
        };
        Ok(told(&AdminReportResolved { report, changed }))
    }

    async fn report(&self, key: ReportKey) -> Result<AdminReport, Problem> {
        match self.ask_store(AdminCall::Report(key)).await? {
            AdminAnswer::Report(Some(report)) => Ok(report),
            AdminAnswer::Report(None) => Err(no("report")),
            _ => Err(confused()),
        }
    }

    /// Changes a message in nobody's name, on the way of all writes; whether it was otherwise.
    async fn change(&self, room: RoomId, seq: u64, change: MessageChange) -> Result<bool, Problem> {
        let op = Op {
            actor: SERVICE,
            room,
            kind: OpKind::ChangeMessage { seq, change },
        };
        let shard = room.bucket() % self.parts.shards;
        match self.ask_shard(shard, ServiceAsk::Write(op)).await? {
            ServiceAnswer::Reply(reply) => {
                let data = requests::reply_data(&reply)?;
                Ok(data["changed"] == true)
            }
            _ => Err(confused()),
        }
    }

    /// Notes what is about to be done, or read.
    async fn note(&self, entry: AuditEntry) -> Result<(), Problem> {
        match self.ask_store(AdminCall::Note(entry)).await? {
            AdminAnswer::Noted => Ok(()),
            _ => Err(confused()),
        }
    }

    async fn ask_store(&self, call: AdminCall) -> Result<AdminAnswer, Problem> {
        let call = StoreCall::Admin(Box::new(call));
        match self.store.call_within(STORE_MAX, call).await {
            Ok(StoreAnswer::Admin(answer)) => Ok(*answer),
            Ok(_) => Err(confused()),
            Err(error) => Err(store_away(&error)),
        }
    }

    async fn ask_shard(&self, shard: u16, ask: ServiceAsk) -> Result<ServiceAnswer, Problem> {
        Ok(ask_shard(&*self.parts.serves, SHARD_MAX, shard, ask).await?)
    }
}

fn erasure(user_id: UserId, state: EraseState) -> Response {
    let (state, requested_at) = match state {
        EraseState::Running(at) => (AdminErasureState::Running, Some(at)),
        EraseState::Done | EraseState::None => (AdminErasureState::Done, None),
    };
    told(&AdminErasure {
        user_id,
        state,
        requested_at,
    })
}

fn told<T: Serialize>(answer: &T) -> Response {
    let body = serde_json::to_string(answer).unwrap_or_default();
    json(StatusCode::OK, body)
}

fn no(what: &str) -> Problem {
    Problem::new(ErrorCode::NotFound, format!("no such {what}"))
}

fn refused(refusal: Refusal) -> Problem {
    Problem::new(refusal.code, refusal.message)
}

fn store_away(error: &StoreError) -> Problem {
    match error {
        StoreError::Overloaded => Problem::new(ErrorCode::Overloaded, "the store is busy"),
        StoreError::Unavailable(_) => {
            Problem::new(ErrorCode::Unavailable, "the store does not answer")
        }
    }
}

fn confused() -> Problem {
    tracing::error!("an answer to another question");
    Problem::new(ErrorCode::Internal, "try again")
}

fn limit_of(given: Option<u32>, default: usize) -> Result<usize, Problem> {
    let max = limits::ADMIN_PAGE_MAX.max(default);
    match given {
        None => Ok(default),
        Some(0) => Err(Problem::new(
            ErrorCode::BadRequest,
            "`limit` must be at least 1",
        )),
        Some(limit) => Ok((limit as usize).min(max)),
    }
}

fn page(
    query: Option<Text>,
    cursor: Option<Text>,
    limit: Option<u32>,
) -> Result<PageRead, Problem> {
    Ok(PageRead {
        query: query.map(Text::into_string),
        cursor: cursor.map(Text::into_string),
        limit: limit_of(limit, limits::ADMIN_PAGE)?,
    })
}

fn webhook_seen(kept: WebhookKept) -> AdminWebhook {
    let WebhookKept {
        webhook,
        received_at,
        answer,
        replays,
    } = kept;
    AdminWebhook {
        source: webhook.source,
        webhook_id: webhook.id,
        signed_at: webhook.signed_at,
        received_at,
        body: String::from_utf8_lossy(&webhook.body).into_owned(),
        status: answer.as_ref().map(|answer| answer.status),
        answer: answer.map(|answer| answer.body),
        replays,
    }
}

fn is_short(text: Option<&Text>) -> Result<(), Problem> {
    let max = limits::ADMIN_NOTE_CHARS_MAX;
    match text {
        Some(text) if text.chars().count() > max => Err(Problem::new(
            ErrorCode::TooLarge,
            format!("at most {max} characters"),
        )),
        Some(_) | None => Ok(()),
    }
}

/// What anybody may have written, for the audit trail.
fn shortened(text: &str) -> String {
    text.chars().take(limits::CLIENT_CHARS_MAX).collect()
}

fn parse_place(cursor: &str) -> Option<(u16, u32)> {
    let (shard, place) = cursor.split_once('-')?;
    Some((shard.parse().ok()?, place.parse().ok()?))
}

fn shown(shard: u16, seen: ConnectionSeen) -> AdminConnection {
    AdminConnection {
        connection_id: seen.name,
        user_id: seen.user,
        address: seen.address.map(|address| address.to_string()),
        client: seen.client,
        connected_at: seen.connected_at,
        token_expires_at: seen.token_expires_at,
        outbox_bytes: seen.outbox_bytes as u64,
        shard,
    }
}
