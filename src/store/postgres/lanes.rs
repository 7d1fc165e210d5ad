//! The tasks of the thread of data I/O: lanes that commit, readers, one that makes users known, and one
//! that answers what has waited for too long.
//!
//! **Group commit.** A lane takes all batches that wait in it, from all callers, as one transaction;
//! what arrives meanwhile is the next group. A caller whose batches are under way stays in its lane, so
//! they are decided in the order they were given; one who has none goes to the emptiest.
//!
//! Invariants: a call waits in one queue or is in the hands of one task; every call is answered when it
//! is due, whether or not the database answers; a statement that was given up ends its connection, so
//! its answer can be taken for no other's. An answer is told only with the epoch it was read in.

use super::commit::{COMMIT, Locks, TRY_COMMIT, commit};
use super::erase::{ERASE, SENT_BEFORE};
use super::index::ToIndex;
use super::options::{
    BACKOFF_MAX, BACKOFF_MIN, CONNECT_MAX, GROUP_OPS_MAX, KNOWN_USERS_MAX, LANES, PostgresOptions,
    READERS, SEARCHERS, Target, WAITING_LANES,
};
use super::read::{READS, Read, answer};
use super::rooms::{KNOW, know};
use super::row::Failure;
use super::search::SEARCHES;
use super::session::Session;
use super::threads::{Call, Pending, Shared};
use crate::chat::port::hooks::HookAnswer;
use crate::chat::port::{Op, SignIn, StoreAnswer, StoreCall, StoreError};
use crate::protocol::{Epoch, RoomId, UnixMs};
use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::future::Future;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::sync::Notify;

/// How often it is looked for calls that are due.
const SWEEP: Duration = Duration::from_millis(50);

/// All that the tasks share.
pub(super) struct Io {
    target: Target,
    options: PostgresOptions,
    shared: Arc<Shared>,
    /// [`LANES`] for batches that try, and behind them [`WAITING_LANES`] for those that wait.
    lanes: Vec<Queue<Batch>>,
    reads: Queue<ReadCall>,
    /// Apart from the other reads, none of which may wait for one of these.
    searches: Queue<ReadCall>,
    /// Apart as well: steps of upkeep, one after the other.
    upkeep: Queue<ReadCall>,
    /// What the index of messages does not have yet, each once; who adds to it looks into `noted`.
    pub unindexed: Queue<ToIndex>,
    noted: RefCell<BTreeSet<ToIndex>>,
    changes: Queue<Change>,
    /// Which lane a caller is in with the batches of one kind, and with how many.
    callers: RefCell<BTreeMap<(usize, Locks), (usize, usize)>>,
    /// Told after every answer, while the store ends.
    pub answered: Notify,
}

/// What waits for one kind of task.
pub(super) struct Queue<T> {
    items: RefCell<VecDeque<T>>,
    wake: Notify,
}

impl<T> Queue<T> {
    fn new() -> Queue<T> {
        Queue {
            items: RefCell::default(),
            wake: Notify::new(),
        }
    }

    fn push(&self, item: T) {
        self.items.borrow_mut().push_back(item);
        self.wake.notify_one();
    }

    fn pop(&self) -> Option<T> {
        self.items.borrow_mut().pop_front()
    }

    fn pop_if(&self, test: impl Fn(&T) -> bool) -> Option<T> {
        let mut items = self.items.borrow_mut();
        if items.front().is_some_and(test) {
            items.pop_front()
        } else {
            None
        }
    }
}

/// A commit that waits.
struct Batch {
    pending: Pending,
    caller: (usize, Locks),
    ops: Vec<Op>,
}

/// A read that waits.
struct ReadCall {
    pending: Pending,
    call: StoreCall,
    /// The users of a sign-in are known.
    is_written: bool,
    /// The connection broke under it once.
    is_repeated: bool,
}

/// What is written beside the batches.
enum Change {
    Know(Pending, Vec<SignIn>),
    RenewEpoch(Pending, Epoch),
}

impl Change {
    fn pending(&self) -> &Pending {
        match self {
            Change::Know(pending, _) | Change::RenewEpoch(pending, _) => pending,
        }
    }

    fn users(&self) -> &[SignIn] {
        match self {
            Change::Know(_, users) => users,
            Change::RenewEpoch(..) => &[],
        }
    }
}

impl Io {
    pub fn new(target: Target, options: PostgresOptions, shared: Arc<Shared>) -> Io {
        Io {
            target,
            options,
            shared,
            lanes: (0..LANES + WAITING_LANES).map(|_| Queue::new()).collect(),
            reads: Queue::new(),
            searches: Queue::new(),
            upkeep: Queue::new(),
            unindexed: Queue::new(),
            noted: RefCell::default(),
            changes: Queue::new(),
            callers: RefCell::default(),
            answered: Notify::new(),
        }
    }

    /// Puts a call where it is done.
    pub fn take(&self, call: Call) {
        match call {
            Call::Commit(pending, ops, locks) => {
                let caller = (pending.caller(), locks);
                let lane = self.enter(caller);
                self.lanes[lane].push(Batch {
                    pending,
                    caller,
                    ops,
                });
            }
            Call::Read(pending, call) => {
                let queue = match call {
                    StoreCall::Search(_) => &self.searches,
                    // So may what looks at everything; what changes something is short.
                    StoreCall::Hooks(ref call) if !call.writes() => &self.searches,
                    StoreCall::Upkeep(_) | StoreCall::Hooks(_) => &self.upkeep,
                    StoreCall::Admin(ref call) if !call.writes() => &self.searches,
                    _ => &self.reads,
                };
                queue.push(ReadCall {
                    pending,
                    call,
                    is_written: false,
                    is_repeated: false,
                });
            }
            Call::RenewEpoch(pending, last) => {
                self.changes.push(Change::RenewEpoch(pending, last));
            }
        }
    }

    /// Notes what is to be indexed.
    pub fn to_index(&self, what: ToIndex) {
        if self.noted.borrow_mut().insert(what) {
            self.unindexed.push(what);
        }
    }

    /// What is to be indexed next.
    pub fn take_to_index(&self) -> Option<ToIndex> {
        let next = self.unindexed.pop()?;
        self.noted.borrow_mut().remove(&next);
        Some(next)
    }

    /// The lane of a caller, who has one batch more in it.
    fn enter(&self, caller: (usize, Locks)) -> usize {
        let mut callers = self.callers.borrow_mut();
        if let Some((lane, batches)) = callers.get_mut(&caller) {
            *batches += 1;
            return *lane;
        }
        let mut load = [0; LANES + WAITING_LANES];
        for (lane, batches) in callers.values() {
            load[*lane] += batches;
        }
        let lanes = match caller.1 {
            Locks::Try => 0..LANES,
            Locks::Wait => LANES..LANES + WAITING_LANES,
        };
        let first = lanes.start;
        let emptiest = lanes.min_by_key(|lane| load[*lane]).unwrap_or(first);
        callers.insert(caller, (emptiest, 1));
        emptiest
    }

    /// Answers a commit; its caller has one batch less.
    fn done(&self, batch: Batch, result: Result<StoreAnswer, StoreError>) {
        let mut callers = self.callers.borrow_mut();
        if let Some((_, batches)) = callers.get_mut(&batch.caller) {
            *batches -= 1;
            if *batches == 0 {
                callers.remove(&batch.caller);
            }
        }
        drop(callers);
        self.answer(batch.pending, result);
    }

    fn answer(&self, pending: Pending, result: Result<StoreAnswer, StoreError>) {
        pending.answer(result);
        self.answered.notify_one();
    }

    fn now(&self) -> Option<UnixMs> {
        self.options.clock.as_ref().map(|clock| clock())
    }

    /// Answers what is due and still waits.
    fn sweep(&self, now: Instant) {
        for lane in &self.lanes {
            while let Some(batch) = lane.pop_if(|batch| batch.pending.due <= now) {
                self.done(batch, Err(overdue()));
            }
        }
        for reads in [&self.reads, &self.searches, &self.upkeep] {
            while let Some(read) = reads.pop_if(|read| read.pending.due <= now) {
                self.answer(read.pending, Err(overdue()));
            }
        }
        while let Some(change) = self.changes.pop_if(|change| change.pending().due <= now) {
            let (Change::Know(pending, _) | Change::RenewEpoch(pending, _)) = change;
            self.answer(pending, Err(overdue()));
        }
    }

    /// A result that was read in this session: told only if the history is still that one.
    fn checked<T>(
        &self,
        session: &Session,
        result: Result<T, StoreError>,
    ) -> Result<T, StoreError> {
        if session.epoch() == self.shared.epoch() {
            result
        } else {
            let text = "the history was replaced meanwhile".to_owned();
            Err(StoreError::Unavailable(text))
        }
    }
}

fn overdue() -> StoreError {
    StoreError::Unavailable("the database did not answer in time".to_owned())
}

/// Starts all tasks.
pub(super) fn start(io: &Rc<Io>) {
    for lane in 0..LANES + WAITING_LANES {
        let io = Rc::clone(io);
        let locks = if lane < LANES {
            Locks::Try
        } else {
            Locks::Wait
        };
        tokio::task::spawn_local(async move {
            let mut link = Link::new(&io, &[COMMIT, TRY_COMMIT, ERASE, SENT_BEFORE]);
            loop {
                link.ready(&io.lanes[lane]).await;
                commit_group(&mut link, lane, locks).await;
            }
        });
    }
    for _ in 0..READERS {
        let io = Rc::clone(io);
        tokio::task::spawn_local(async move {
            let mut link = Link::new(&io, READS);
            loop {
                link.ready(&io.reads).await;
                read_one(&mut link, &io.reads).await;
            }
        });
    }
    for _ in 0..SEARCHERS {
        let io = Rc::clone(io);
        tokio::task::spawn_local(async move {
            let mut link = Link::new(&io, SEARCHES);
            loop {
                link.ready(&io.searches).await;
                read_one(&mut link, &io.searches).await;
            }
        });
    }
    {
        let io = Rc::clone(io);
        tokio::task::spawn_local(async move {
            let mut link = Link::new(&io, super::erase::STEPS);
            loop {
                link.ready(&io.upkeep).await;
                read_one(&mut link, &io.upkeep).await;
            }
        });
    }
    tokio::task::spawn_local(super::index::run(Rc::clone(io)));
    {
        let io = Rc::clone(io);
        tokio::task::spawn_local(async move {
            let mut link = Link::new(&io, &[KNOW]);
            loop {
                link.ready(&io.changes).await;
                change(&mut link).await;
            }
        });
    }
    let io = Rc::clone(io);
    tokio::task::spawn_local(async move {
        let mut ticks = tokio::time::interval(SWEEP);
        ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            ticks.tick().await;
            io.sweep(Instant::now());
            io.answered.notify_one();
        }
    });
}

async fn commit_group(link: &mut Link, lane: usize, locks: Locks) {
    let io = Rc::clone(&link.io);
    let queue = &io.lanes[lane];
    let mut group: Vec<Batch> = Vec::new();
    let mut count = 0;
    while let Some(batch) =
        queue.pop_if(|batch| count == 0 || count + batch.ops.len() <= GROUP_OPS_MAX)
    {
        count += batch.ops.len();
        group.push(batch);
    }
    let Some(first) = group.first() else {
        return;
    };
    let due = first.pending.due;
    let ops: Vec<&Op> = group.iter().flat_map(|batch| &batch.ops).collect();
    let now = io.now();
    let result = link
        .run(due, async |session| {
            let outcomes = commit(session, locks, now, &ops).await;
            io.checked(session, outcomes)
        })
        .await;
    if let Ok(outcomes) = &result {
        for (op, outcome) in ops.iter().zip(outcomes) {
            if outcome.as_ref().is_ok_and(|done| !done.events.is_empty()) {
                io.to_index(ToIndex::Room(op.room));
            }
        }
    }
    drop(ops);
    let mut outcomes = result.map(Vec::into_iter);
    for batch in group {
        let count = batch.ops.len();
        let answer = match &mut outcomes {
            Ok(outcomes) => Ok(StoreAnswer::Commit(outcomes.take(count).collect())),
            Err(error) => Err(error.clone()),
        };
        io.done(batch, answer);
    }
}

async fn read_one(link: &mut Link, queue: &Queue<ReadCall>) {
    let io = Rc::clone(&link.io);
    let Some(mut read) = queue.pop() else {
        return;
    };
    let result = link
        .run(read.pending.due, async |session| {
            let epoch = session.epoch();
            let found = match answer(session, io.now(), &read.call, read.is_written).await {
                Ok(Read::Answer(found)) => Ok(Some(found)),
                Ok(Read::MustWrite) => Ok(None),
                Err(failure) => Err(told(failure)),
            };
            if session.epoch() != epoch {
                tracing::warn!(epoch = %session.epoch(), "the database has another history");
                io.shared.learn_epoch(epoch, session.epoch());
            }
            io.checked(session, found)
        })
        .await;
    match result {
        Ok(Some(found)) => {
            if let StoreAnswer::Hooks(answer) = &found
                && let HookAnswer::Lease(lease) = &**answer
                && lease.is_taken_over
            {
                // Whoever had the work before has died, with what it had noted for the index, by which we follow.
                io.to_index(ToIndex::CompareOnce(RoomId(uuid::Uuid::nil())));
            }
            io.answer(read.pending, Ok(found));
        }
        Ok(None) => match read.call {
            StoreCall::SignIn(users) => io.changes.push(Change::Know(read.pending, users)),
            _ => io.answer(read.pending, Err(overdue())),
        },
        // A read changes nothing: where only the connection broke it is asked again.
        Err(_) if link.is_broken() && !read.is_repeated && read.pending.due > Instant::now() => {
            read.is_repeated = true;
            queue.items.borrow_mut().push_front(read);
            queue.wake.notify_one();
        }
        Err(error) => io.answer(read.pending, Err(error)),
    }
}

/// What a read's failure is to its caller. Broken connections are logged where they are noticed.
fn told(failure: Failure) -> StoreError {
    if let Failure::Data(text) = &failure {
        tracing::error!(error = text, "read failed");
    }
    failure.into()
}

async fn change(link: &mut Link) {
    let io = Rc::clone(&link.io);
    let mut group = Vec::new();
    let mut users = 0;
    while let Some(change) = io.changes.pop_if(|change| match change {
        Change::Know(_, more) => users == 0 || users + more.len() <= KNOWN_USERS_MAX,
        Change::RenewEpoch(..) => group.is_empty(),
    }) {
        users += change.users().len();
        let is_renewal = matches!(change, Change::RenewEpoch(..));
        group.push(change);
        if is_renewal {
            break;
        }
    }
    let Some(first) = group.first() else {
        return;
    };
    let due = first.pending().due;
    let renewal = match first {
        Change::RenewEpoch(_, last) => Some(*last),
        Change::Know(..) => None,
    };
    let now = io.now();
    let result = link
        .run(due, async |session| match renewal {
            Some(last) => renew_epoch(&io, session, last).await,
            None => {
                let users = group.iter().flat_map(Change::users);
                know(session, now, users).await.map_err(told)
            }
        })
        .await;
    for change in group {
        match (change, &result) {
            (Change::Know(pending, users), Ok(())) => io.reads.push(ReadCall {
                pending,
                call: StoreCall::SignIn(users),
                is_written: true,
                is_repeated: false,
            }),
            (Change::RenewEpoch(pending, _), Ok(())) => {
                io.answer(pending, Ok(StoreAnswer::RenewEpoch));
            }
            (Change::Know(pending, _) | Change::RenewEpoch(pending, _), Err(error)) => {
                io.answer(pending, Err(error.clone()));
            }
        }
    }
}

/// Gives the history another epoch if it still has this one. The other connections are made again by
/// and by, because they know another epoch now.
async fn renew_epoch(io: &Io, session: &Session, last: Epoch) -> Result<(), StoreError> {
    let kept = async || {
        let rows = session.query("SELECT epoch FROM meta", &[]).await;
        let rows = rows.map_err(|error| StoreError::from(Failure::from(error)))?;
        match rows.first().map(|row| row.try_get::<_, i64>(0)) {
            Some(Ok(kept)) => Ok(kept),
            Some(Err(_)) | None => Err(StoreError::Unavailable("meta is empty".to_owned())),
        }
    };
    let known = io.shared.epoch();
    let before = kept().await?;
    if session.server().epoch(before) == last {
        session
            .query(
                "UPDATE meta SET epoch = $2 WHERE epoch = $1",
                &[&before, &super::schema::random_epoch()],
            )
            .await
            .map_err(|error| StoreError::from(Failure::from(error)))?;
        tracing::warn!(%last, "the history was replaced");
    }
    let now = session.epoch_is(kept().await?);
    io.shared.learn_epoch(known, now);
    io.checked(session, Ok(()))
}

/// The connection of one task, made again whenever it is lost.
pub(super) struct Link {
    io: Rc<Io>,
    statements: &'static [&'static str],
    session: Option<Session>,
    /// Attempts in a row that failed.
    failures: u32,
}

impl Link {
    pub fn new(io: &Rc<Io>, statements: &'static [&'static str]) -> Link {
        Link {
            io: Rc::clone(io),
            statements,
            session: None,
            failures: 0,
        }
    }

    /// Whether the last call lost its connection.
    fn is_broken(&self) -> bool {
        self.session.as_ref().is_none_or(Session::is_closed)
    }

    /// Waits until there is a connection, and something to do with it.
    pub async fn ready<T>(&mut self, queue: &Queue<T>) {
        loop {
            let epoch = self.io.shared.epoch();
            let session = self.session.take();
            let session =
                session.filter(|session| !session.is_closed() && session.epoch() == epoch);
            let Some(session) = session else {
                self.connect().await;
                continue;
            };
            if !queue.items.borrow().is_empty() {
                self.session = Some(session);
                return;
            }
            tokio::select! {
                () = queue.wake.notified() => (),
                () = session.closed() => tracing::debug!("a connection to the database has ended"),
            }
            self.session = Some(session);
        }
    }

    async fn connect(&mut self) {
        if self.failures > 0 {
            tokio::time::sleep(backoff(self.failures)).await;
        }
        let options = &self.io.options;
        let known = self.io.shared.epoch();
        let opening = Session::open(&self.io.target, options.statement_max, self.statements);
        let failed = match tokio::time::timeout(CONNECT_MAX, opening).await {
            Ok(Ok(session)) => {
                if self.failures > 0 {
                    tracing::info!(
                        attempts = self.failures + 1,
                        "connected to the database again"
                    );
                }
                self.failures = 0;
                if session.epoch() != known {
                    tracing::warn!(epoch = %session.epoch(), "the database has another history");
                    self.io.shared.learn_epoch(known, session.epoch());
                }
                // If it is behind by now, it is made again before it is used.
                self.session = Some(session);
                return;
            }
            Ok(Err(text)) => text,
            Err(_) => "it does not answer".to_owned(),
        };
        self.failures = self.failures.saturating_add(1);
        // Once when it begins, and then with every further wait of full length.
        if self.failures == 1 || self.failures.is_multiple_of(10) {
            tracing::warn!(error = failed, "no connection to the database");
        }
    }

    /// Works with the connection until this is due. What is given up ends the connection.
    pub async fn run<T>(
        &mut self,
        due: Instant,
        work: impl AsyncFnOnce(&Session) -> Result<T, StoreError>,
    ) -> Result<T, StoreError> {
        let Some(session) = &self.session else {
            return Err(overdue());
        };
        let result = timeout_at(due, work(session)).await;
        if result.is_none() {
            tracing::warn!("the database did not answer in time");
            self.session = None;
        }
        result.unwrap_or_else(|| Err(overdue()))
    }
}

async fn timeout_at<T>(due: Instant, work: impl Future<Output = T>) -> Option<T> {
    tokio::time::timeout_at(due.into(), work).await.ok()
}

/// Twice as long after each failure, up to a bound, and never the same for two connections: a database
/// that is back is not met by all of them at once.
fn backoff(failures: u32) -> Duration {
    let full = BACKOFF_MIN
        .saturating_mul(1 << (failures - 1).min(10))
        .min(BACKOFF_MAX);
    let random = uuid::Uuid::new_v4().as_bytes()[0];
    full.mul_f64(0.5 + f64::from(random) / 512.0)
}
