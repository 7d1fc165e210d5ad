//! Webhooks out: one worker over all nodes decides who is to be told of messages, and tells other services what stands
//! in the outbox.
//!
//! Invariants: what is sent stands in the store, with its id and body, before it is sent; of a room one is under way,
//! the first; what is not known to be delivered is sent again, with the same id and body, by whoever has the work then.
//! Nothing is kept in memory that another worker would need. It is bounded: rooms of a pass, webhooks under way, bytes
//! of an answer.
//!
//! The order: [`Worker::lease`] keeps the work, [`Worker::decide`] follows the messages, [`Worker::deliver`] the
//! outbox, and [`Worker::take_back`] what was pushed and is read since.

pub use super::hook_counts::HookCounts;
use super::shard_client::ask_shard;
use super::store_client::StoreClient;
use super::{NodeView, Phase, Serves};
use crate::chat::port::hooks::{
    Attempted, HOOK_LEASE_MS, HookAnswer, HookCall, HookKept, HookLease, NewHook, PushMessage,
    PushRoom, PushUnread, Pushed,
};
use crate::chat::port::{ServiceAnswer, ServiceAsk, Store, StoreAnswer, StoreCall};
use crate::chat::push::{self, PushFacts};
use crate::identity::WebhookSecrets;
use crate::limits;
use crate::protocol::hooks::{self, HookKind, PushCancelled, PushRequired};
use crate::protocol::{RoomId, Seq, UnixMs, UserId};
use std::collections::{BTreeMap, BTreeSet};
use std::pin::Pin;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};
use tokio::task::JoinSet;
use uuid::Uuid;

/// How often the work is asked for, or kept.
const LEASE_EVERY: Duration = Duration::from_millis(HOOK_LEASE_MS / 4);
/// Between two looks whether the node is up.
const START_LOOK_EVERY: Duration = Duration::from_millis(20);
/// The work is given up so long before somebody else may take it.
const LEASE_MARGIN: Duration = Duration::from_millis(2_000);
/// Between two looks that found nothing to do.
const LOOK_EVERY: Duration = Duration::from_millis(250);
/// Between two looks at what was pushed.
const TAKE_BACK_EVERY: Duration = Duration::from_millis(1_000);
/// Rooms of one pass.
const ROOMS: usize = 128;
/// Rooms read at once.
const ROOMS_READ: usize = 4;
/// Pushes of one look.
const PUSHED: usize = 500;
/// The same while there are more.
const TAKE_BACK_MORE: Duration = Duration::from_millis(100);
/// Longest wait for the store.
const STORE_MAX: Duration = Duration::from_secs(5);
/// Longest wait for a shard.
const SHARD_MAX: Duration = Duration::from_millis(1_000);
/// Other nodes have so long to say who is connected to them.
const ELSEWHERE_MAX: Duration = Duration::from_millis(300);
/// While the receiver takes nothing it is tried at least this often.
const PROBE_EVERY_MAX: Duration = Duration::from_secs(30);
/// A receiver that asks for more time is not left alone for longer.
const RETRY_AFTER_MAX: Duration = Duration::from_secs(3_600);

/// What is posted.
#[derive(Debug)]
pub struct HookPosted {
    /// Its headers.
    pub headers: Vec<(&'static str, String)>,
    /// Its body.
    pub body: Vec<u8>,
}

/// What is answered.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct HookTold {
    /// The status.
    pub status: u16,
    /// How long the receiver wants to be left alone, s.
    pub retry_after_s: Option<u64>,
}

/// What the receiver answers, or why there is no answer.
pub type HookPosting = Pin<Box<dyn Future<Output = Result<HookTold, &'static str>> + Send>>;

/// Posts to the receiver.
pub type HookPost = dyn Fn(HookPosted) -> HookPosting + Send + Sync;

/// What it needs of the node.
#[derive(Clone)]
pub struct HookParts {
    /// The worker of this node, for as long as the node runs.
    pub holder: Uuid,
    /// Every one of these signs.
    pub secrets: Arc<WebhookSecrets>,
    /// Posts to the receiver.
    pub post: Arc<HookPost>,
    /// The shards.
    pub shards: u16,
    /// Asks one of them.
    pub serves: Arc<Serves>,
    /// A message is pushed after this time, ms, if it is not read by then.
    pub grace_ms: u64,
    /// The first wait after an attempt that failed, ms.
    pub retry_ms: u64,
    /// Attempts before it is given up.
    pub attempts_max: u32,
    /// Whether a push shows the text.
    pub previews: bool,
    /// What is counted.
    pub counts: Arc<HookCounts>,
}

/// Says that somebody wants to be told: before anybody is served, so that nothing happens of which nobody is. Where
/// another node has the work, it has said so.
pub async fn want(parts: &HookParts, store: Arc<dyn Store>) {
    let call = HookCall::Lease {
        holder: parts.holder,
        takes: true,
    };
    let call = StoreCall::Hooks(Box::new(call));
    let answer = StoreClient::new(store).call_within(STORE_MAX, call).await;
    if let Err(error) = answer {
        tracing::warn!(?error, "what happens first is perhaps not told by webhooks");
    }
}

/// For ever: has the work, or waits for it.
pub(super) async fn run(parts: HookParts, store: StoreClient, node: Arc<dyn NodeView>) {
    let worker = Arc::new(Worker {
        holder: parts.holder,
        parts,
        store,
        node,
        held: Mutex::default(),
    });
    // Each ends with the runtime.
    let (deciding, telling, taking) = (worker.clone(), worker.clone(), worker.clone());
    tokio::join!(
        worker.lease(),
        deciding.decide(),
        telling.deliver(),
        taking.take_back(),
    );
}

/// The work is ours, and the receiver is there.
#[derive(Clone, Copy, Debug)]
struct Held {
    until: Instant,
    /// Messages written before are not told.
    since: UnixMs,
    /// The store's time, and ours then.
    now: (UnixMs, Instant),
}

impl Held {
    /// The store's time.
    fn now(&self) -> UnixMs {
        let since = u64::try_from(self.now.1.elapsed().as_millis()).unwrap_or(0);
        UnixMs(self.now.0.0 + since)
    }
}

struct Worker {
    holder: Uuid,
    parts: HookParts,
    store: StoreClient,
    node: Arc<dyn NodeView>,
    held: Mutex<Option<Held>>,
}

type Failed = String;

/// An answer of another kind than the call.
fn confused<T>() -> Result<T, Failed> {
    Err("an answer to another call".to_owned())
}

impl Worker {
    fn set_held(&self, held: Option<Held>) {
        *self.held.lock().unwrap_or_else(PoisonError::into_inner) = held;
        let holds = u64::from(held.is_some());
        self.parts.counts.holds.store(holds, Ordering::Relaxed);
    }

    /// Whether the work is ours now, and there is something to be done.
    fn held(&self) -> Option<Held> {
        let held = *self.held.lock().unwrap_or_else(PoisonError::into_inner);
        held.filter(|held| held.until > Instant::now())
    }

    async fn call(&self, call: HookCall) -> Result<HookAnswer, Failed> {
        let call = StoreCall::Hooks(Box::new(call));
        match self.store.call_within(STORE_MAX, call).await {
            Ok(StoreAnswer::Hooks(answer)) => Ok(*answer),
            Ok(_) => confused(),
            Err(error) => Err(format!("{error:?}")),
        }
    }

    /// Asks for the work, and keeps it.
    async fn lease(&self) {
        // The shards are asked who is connected.
        while self.node.phase() == Phase::Starting {
            tokio::time::sleep(START_LOOK_EVERY).await;
        }
        loop {
            let asked = Instant::now();
            let takes = self.node.phase() == Phase::Up;
            let call = HookCall::Lease {
                holder: self.holder,
                takes,
            };
            match self.call(call).await {
                Ok(HookAnswer::Lease(lease)) => self.leased(asked, lease),
                Ok(_) => tracing::error!("a lease was answered another question"),
                Err(error) => tracing::debug!(error, "no answer about the work of the webhooks"),
            }
            tokio::time::sleep(LEASE_EVERY).await;
        }
    }

    fn leased(&self, asked: Instant, lease: HookLease) {
        let counts = &self.parts.counts;
        let lag_ms = lease
            .oldest
            .map_or(0, |oldest| lease.now.0.saturating_sub(oldest.0));
        counts.lag_ms.store(lag_ms, Ordering::Relaxed);
        let is_gone = u64::from(lease.disabled_at.is_some());
        counts.disabled.store(is_gone, Ordering::Relaxed);
        self.set_held(
            (lease.is_held && lease.disabled_at.is_none()).then(|| Held {
                until: asked + Duration::from_millis(HOOK_LEASE_MS) - LEASE_MARGIN,
                since: lease.since,
                now: (lease.now, asked),
            }),
        );
    }

    /// Follows the messages.
    async fn decide(self: Arc<Self>) {
        let mut after = RoomId(Uuid::nil());
        loop {
            let mut has_more = false;
            if let Some(held) = self.held() {
                match self.decide_rooms(held, after).await {
                    Ok(last) => {
                        has_more = last.is_some();
                        after = last.unwrap_or(RoomId(Uuid::nil()));
                    }
                    // All that was read is read again.
                    Err(error) => tracing::warn!(error, "whom to tell is decided later"),
                }
            }
            if !has_more {
                tokio::time::sleep(LOOK_EVERY).await;
            }
        }
    }

    /// Decides in the next rooms; the last of them if there may be more.
    async fn decide_rooms(
        self: &Arc<Self>,
        held: Held,
        after: RoomId,
    ) -> Result<Option<RoomId>, Failed> {
        let now = held.now();
        let until = UnixMs(now.0.saturating_sub(self.parts.grace_ms));
        let call = HookCall::Rooms {
            after,
            until,
            limit: ROOMS,
        };
        let HookAnswer::Rooms(rooms) = self.call(call).await? else {
            return confused();
        };
        let read = self.read_rooms(&rooms, until).await?;
        let written = read.iter().filter_map(|it| it.2.messages.first());
        let oldest = written.map(|message| message.created_at.0).min();
        let late_ms = oldest.map_or(0, |oldest| until.0.saturating_sub(oldest));
        let behind = &self.parts.counts.behind_ms;
        behind.store(late_ms, Ordering::Relaxed);
        let facts = |room: &PushRoom, message: &PushMessage, user: UserId| PushFacts {
            now,
            since: held.since,
            member_count: room.member_count,
            is_blocked: room.blocks.iter().any(|(who, whom)| {
                (*who, *whom) == (user, message.sender) || (*who, *whom) == (message.sender, user)
            }),
        };
        let wanting = |room: &PushRoom| -> Vec<(usize, UserId)> {
            let mut found = Vec::new();
            for (place, message) in room.messages.iter().enumerate() {
                for member in &room.members {
                    let facts = facts(room, message, member.user);
                    if push::wants(message, member, &facts).is_ok() {
                        found.push((place, member.user));
                    }
                }
            }
            found
        };
        let wants: Vec<Vec<(usize, UserId)>> = read.iter().map(|it| wanting(&it.2)).collect();
        let users: BTreeSet<UserId> = wants.iter().flatten().map(|(_, user)| *user).collect();
        let connected = self.connected(users).await;
        // What is too young now is looked at again before it is late.
        let looked_at = UnixMs(now.0.saturating_sub(self.parts.grace_ms / 2));
        let mut passed = Vec::new();
        for ((room, from, found), mut wants) in read.into_iter().zip(wants) {
            let before = wants.len();
            wants.retain(|(_, user)| !connected.contains(user));
            HookCounts::add(&self.parts.counts.connected, before - wants.len());
            match wants.is_empty() {
                true => passed.push((room, from, found.to)),
                false => self.decided(now, (room, from), &found, &wants).await?,
            }
        }
        if !passed.is_empty() {
            let rooms = passed;
            self.call(HookCall::Passed { rooms, looked_at }).await?;
        }
        Ok((rooms.len() == ROOMS).then(|| rooms[ROOMS - 1].0))
    }

    /// Reads what decides, some rooms at a time.
    async fn read_rooms(
        self: &Arc<Self>,
        rooms: &[(RoomId, Seq)],
        until: UnixMs,
    ) -> Result<Vec<(RoomId, Seq, PushRoom)>, Failed> {
        let mut found = Vec::new();
        for rooms in rooms.chunks(ROOMS_READ) {
            let mut reads = JoinSet::new();
            for (room, from) in rooms.iter().copied() {
                let worker = self.clone();
                reads.spawn(async move {
                    let call = HookCall::Room { room, from, until };
                    (room, from, worker.call(call).await)
                });
            }
            while let Some(read) = reads.join_next().await {
                let (room, from, answer) = read.map_err(|error| error.to_string())?;
                match answer? {
                    HookAnswer::Room(Some(read)) => found.push((room, from, *read)),
                    HookAnswer::Room(None) => (),
                    _ => return confused(),
                }
            }
        }
        Ok(found)
    }

    /// Writes whom to tell, and that this stretch of the room is decided.
    async fn decided(
        &self,
        now: UnixMs,
        (room, from): (RoomId, Seq),
        found: &PushRoom,
        wants: &[(usize, UserId)],
    ) -> Result<(), Failed> {
        let users: BTreeSet<UserId> = wants.iter().map(|(_, user)| *user).collect();
        let unread = self.unread(room, users, now).await?;
        let mut hooks = Vec::with_capacity(wants.len());
        for (place, user) in wants {
            let (Some(message), Some(unread)) = (found.messages.get(*place), unread.get(user))
            else {
                continue;
            };
            let text = message.text.as_deref().filter(|_| self.parts.previews);
            let data = PushRequired {
                user_id: *user,
                room_id: room,
                room_kind: found.kind,
                room_title: found.title.as_deref(),
                message_seq: message.seq,
                sent_at: message.created_at,
                sender_id: message.sender,
                sender_name: &message.sender_name,
                message_kind: message.kind,
                preview: text.map(push::preview),
                mentioned: push::names(message, *user),
                unread: unread.unread,
                badge: unread.badge,
            };
            hooks.push(new_hook(HookKind::PushRequired, *user, message.seq, &data)?);
        }
        let count = hooks.len();
        let call = HookCall::Decided {
            room,
            from,
            to: found.to,
            looked_at: UnixMs(now.0.saturating_sub(self.parts.grace_ms / 2)),
            hooks,
        };
        match self.call(call).await? {
            HookAnswer::Done(true) => HookCounts::add(&self.parts.counts.pushes, count),
            // Somebody else was there first.
            HookAnswer::Done(false) => (),
            _ => return confused(),
        }
        Ok(())
    }

    async fn unread(
        &self,
        room: RoomId,
        users: BTreeSet<UserId>,
        now: UnixMs,
    ) -> Result<BTreeMap<UserId, PushUnread>, Failed> {
        if users.is_empty() {
            return Ok(BTreeMap::new());
        }
        let users = users.into_iter().collect();
        match self.call(HookCall::Unread { room, users, now }).await? {
            HookAnswer::Unread(found) => Ok(found.into_iter().map(|it| (it.user, it)).collect()),
            _ => confused(),
        }
    }

    /// Which of these users have a connection: to this node, or to another that says so in time. Who does not answer
    /// knows nobody: one push too many rather than none.
    async fn connected(&self, users: BTreeSet<UserId>) -> BTreeSet<UserId> {
        let mut connected = BTreeSet::new();
        let mut rest: Vec<UserId> = users.into_iter().collect();
        for shard in 0..self.parts.shards {
            self.connected_to(shard, &rest, &mut connected).await;
            rest.retain(|user| !connected.contains(user));
        }
        let home = limits::USERS_BUCKET % self.parts.shards.max(1);
        let mut is_asked = false;
        for users in rest.chunks(limits::CONNECTED_USERS_MAX) {
            let ask = ServiceAsk::AskElsewhere(users.to_vec());
            is_asked |= matches!(self.serve(home, ask).await, Some(ServiceAnswer::Asked));
        }
        if is_asked {
            tokio::time::sleep(ELSEWHERE_MAX).await;
            self.connected_to(home, &rest, &mut connected).await;
        }
        connected
    }

    async fn connected_to(&self, shard: u16, users: &[UserId], connected: &mut BTreeSet<UserId>) {
        for users in users.chunks(limits::CONNECTED_USERS_MAX) {
            let ask = ServiceAsk::Connected(users.to_vec());
            if let Some(ServiceAnswer::Connected(found)) = self.serve(shard, ask).await {
                connected.extend(found);
            }
        }
    }

    async fn serve(&self, shard: u16, ask: ServiceAsk) -> Option<ServiceAnswer> {
        let answer = ask_shard(&*self.parts.serves, SHARD_MAX, shard, ask);
        answer.await.ok()
    }

    /// Tells what stands in the outbox.
    async fn deliver(self: Arc<Self>) {
        let (mut failures, mut after): (u32, _) = (0, RoomId(Uuid::nil()));
        let mut last_failed: Vec<Uuid> = Vec::new();
        loop {
            let Some(held) = self.held() else {
                failures = 0;
                tokio::time::sleep(LOOK_EVERY).await;
                continue;
            };
            let limit = match failures {
                0 => limits::HOOKS_UNDER_WAY_MAX,
                // One at a time, until one is taken again.
                _ => 1,
            };
            let due = match self
                .call(HookCall::Due {
                    now: held.now(),
                    after,
                    limit,
                })
                .await
            {
                Ok(HookAnswer::Hooks(due)) => due,
                Ok(_) => Vec::new(),
                Err(error) => {
                    tracing::warn!(error, "webhooks are told later");
                    Vec::new()
                }
            };
            // Round by round over the rooms, so that none waits for ever.
            let was_first = after == RoomId(Uuid::nil());
            let last = due.last().filter(|_| due.len() == limit);
            after = last.map_or(RoomId(Uuid::nil()), |hook| hook.room);
            if due.is_empty() {
                if was_first {
                    tokio::time::sleep(LOOK_EVERY).await;
                }
                continue;
            }
            let mut under_way = JoinSet::new();
            for hook in due {
                let worker = self.clone();
                under_way.spawn(async move { worker.tell(hook, held).await });
            }
            let (mut taken, mut failed, mut pause) = (false, Vec::new(), Duration::ZERO);
            while let Some(told) = under_way.join_next().await {
                match told {
                    Ok(Told::Taken) => taken = true,
                    Ok(Told::NotMade) => (),
                    Ok(Told::Failed { id, leave_alone }) => {
                        failed.push(id);
                        pause = pause.max(leave_alone);
                    }
                    Err(error) => tracing::error!(%error, "a webhook's telling ended"),
                }
            }
            if taken {
                // Those that are not taken wait, each for itself.
                failures = 0;
            } else if !failed.is_empty() {
                // The same one once more says nothing new of the receiver, which may take others.
                let is_new = std::mem::replace(&mut last_failed, failed.clone()) != failed;
                if is_new || !pause.is_zero() {
                    failures = failures.saturating_add(1);
                    let first = Duration::from_millis(self.parts.retry_ms);
                    let wait = first.saturating_mul(1 << failures.min(16)) / 4;
                    let wait = jittered(wait.min(PROBE_EVERY_MAX)).max(pause);
                    self.sleep_while_held(wait).await;
                }
            }
        }
    }

    async fn sleep_while_held(&self, wait: Duration) {
        let until = Instant::now() + wait;
        while Instant::now() < until && self.held().is_some() {
            let rest = until.saturating_duration_since(Instant::now());
            tokio::time::sleep(rest.min(LEASE_EVERY)).await;
        }
    }

    /// Makes one attempt, and notes what came of it.
    async fn tell(&self, hook: HookKept, held: Held) -> Told {
        let counts = &self.parts.counts;
        if !hook.is_wanted {
            HookCounts::add(&counts.not_wanted, 1);
            self.attempted(hook.id, Attempted::NotWanted).await;
            return Told::NotMade;
        }
        let body = hooks::body(hook.kind, hook.created_at, &hook.data);
        let id = format!("msg_{}", hook.id.simple());
        let timestamp = unix_s().to_string();
        let signature = self.parts.secrets.sign(&id, &timestamp, body.as_bytes());
        let posted = HookPosted {
            headers: vec![
                ("webhook-id", id),
                ("webhook-timestamp", timestamp),
                ("webhook-signature", signature),
            ],
            body: body.into_bytes(),
        };
        let answer = (self.parts.post)(posted).await;
        if let Ok(HookTold { status, .. }) = answer
            && (200..300).contains(&status)
        {
            HookCounts::add(&counts.delivered, 1);
            self.attempted(hook.id, Attempted::Delivered { status })
                .await;
            return Told::Taken;
        }
        HookCounts::add(&counts.failed, 1);
        let (status, error) = match answer {
            Ok(HookTold { status, .. }) => (Some(status), format!("it answers {status}")),
            Err(error) => (None, error.to_owned()),
        };
        tracing::debug!(kind = hook.kind.name(), error, "a webhook is not taken");
        let leave_alone = match answer {
            Ok(HookTold { retry_after_s, .. }) => retry_after_s.map(Duration::from_secs),
            Err(_) => None,
        };
        let leave_alone = leave_alone.unwrap_or_default().min(RETRY_AFTER_MAX);
        if status == Some(GONE) {
            self.gone().await;
        }
        let attempts = hook.attempts + 1;
        let wait = backoff(self.parts.retry_ms, attempts).max(leave_alone);
        let again_at = UnixMs(held.now().0 + u64::try_from(wait.as_millis()).unwrap_or(0));
        // Who is gone has not refused this one.
        let is_last = attempts >= self.parts.attempts_max && status != Some(GONE);
        if is_last {
            HookCounts::add(&counts.given_up, 1);
            tracing::warn!(kind = hook.kind.name(), id = %hook.id, error, "a webhook is given up");
        }
        let outcome = Attempted::Failed {
            status,
            error,
            again_at: (!is_last).then_some(again_at),
        };
        self.attempted(hook.id, outcome).await;
        Told::Failed {
            id: hook.id,
            leave_alone,
        }
    }

    /// The receiver wants nothing any more.
    async fn gone(&self) {
        tracing::warn!(
            "the receiver of webhooks answers 410: nothing is sent until it is enabled again"
        );
        if let Err(error) = self.call(HookCall::Disable(true)).await {
            tracing::warn!(error, "that the receiver is gone is not noted");
        }
        self.parts.counts.disabled.store(1, Ordering::Relaxed);
        self.set_held(None);
    }

    /// If it is not noted, it is told again.
    async fn attempted(&self, id: Uuid, outcome: Attempted) {
        if let Err(error) = self.call(HookCall::Attempted { id, outcome }).await {
            tracing::warn!(error, "an attempt is not noted");
        }
    }

    /// Looks at what was pushed, and takes back what is read.
    async fn take_back(&self) {
        let mut after = None;
        loop {
            let pause = if after.is_some() {
                TAKE_BACK_MORE
            } else {
                TAKE_BACK_EVERY
            };
            tokio::time::sleep(pause).await;
            let Some(held) = self.held() else { continue };
            match self.take_back_after(held, after).await {
                Ok(last) => after = last,
                Err(error) => tracing::warn!(error, "pushes are taken back later"),
            }
        }
    }

    async fn take_back_after(
        &self,
        held: Held,
        after: Option<(RoomId, UserId)>,
    ) -> Result<Option<(RoomId, UserId)>, Failed> {
        let call = HookCall::Pushed {
            after,
            limit: PUSHED,
        };
        let HookAnswer::Pushed { over, last } = self.call(call).await? else {
            return confused();
        };
        for pushed in over {
            let Pushed { room, user, seq } = pushed;
            let unread = self
                .unread(room, BTreeSet::from([user]), held.now())
                .await?;
            let unread = unread.get(&user).map_or((0, 0), |it| (it.unread, it.badge));
            let data = PushCancelled {
                user_id: user,
                room_id: room,
                up_to_seq: seq,
                unread: unread.0,
                badge: unread.1,
            };
            let hook = new_hook(HookKind::PushCancelled, user, seq, &data)?;
            self.call(HookCall::TakeBack { pushed, hook }).await?;
        }
        Ok(last)
    }
}

/// What came of telling one.
enum Told {
    Taken,
    /// Nothing was sent.
    NotMade,
    Failed {
        id: Uuid,
        /// The receiver asks for it.
        leave_alone: Duration,
    },
}

/// The status of one who wants nothing any more.
const GONE: u16 = 410;

fn new_hook<T: serde::Serialize>(
    kind: HookKind,
    user: UserId,
    seq: Seq,
    data: &T,
) -> Result<NewHook, Failed> {
    Ok(NewHook {
        id: Uuid::now_v7(),
        kind,
        user,
        seq,
        data: serde_json::to_string(data).map_err(|error| error.to_string())?,
    })
}

/// Four times as long after each failure, up to a bound.
fn backoff(first_ms: u64, attempts: u32) -> Duration {
    let times = 4_u64.saturating_pow(attempts.saturating_sub(1));
    let ms = first_ms
        .saturating_mul(times)
        .min(limits::HOOK_RETRY_MS_MAX.max(first_ms));
    jittered(Duration::from_millis(ms))
}

/// A quarter more or less, so that what failed together does not come back together.
fn jittered(wait: Duration) -> Duration {
    let random = Uuid::new_v4().as_bytes()[0];
    wait.mul_f64(0.75 + f64::from(random) / 512.0)
}

fn unix_s() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    since.map_or(0, |since| since.as_secs())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_grow_up_to_a_bound_and_differ() {
        for (attempts, ms) in [
            (1, 2_000),
            (2, 8_000),
            (3, 32_000),
            (40, limits::HOOK_RETRY_MS_MAX),
        ] {
            let wait = backoff(2_000, attempts).as_millis() as u64;
            assert!(
                (ms * 3 / 4..=ms * 5 / 4).contains(&wait),
                "{attempts}: {wait}"
            );
        }
        let waits: BTreeSet<Duration> = (0..64).map(|_| backoff(2_000, 3)).collect();
        assert!(waits.len() > 8);
    }
}
