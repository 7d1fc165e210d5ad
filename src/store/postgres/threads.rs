//! The store as its callers see it: from any thread a call goes into a queue of the one thread of data
//! I/O, which holds all connections.
//!
//! Invariants: giving a call never blocks; what is under way is bounded, and above the bound a call is
//! answered `overloaded` at once; a call that was taken is answered exactly once, also when the thread
//! ends, or when answering it panicked.

use super::commit::Locks;
use super::lanes::{self, Io};
use super::options::{CALLS_MAX, CONNECT_MAX, OpenError, PostgresOptions, QUEUED_OPS_MAX, Target};
use super::session::{self, Session};
use crate::chat::port::{
    Op, ReplySink, Store, StoreAnswer, StoreCall, StoreError, StoreReply, Ticket,
};
use crate::protocol::Epoch;
use std::rc::Rc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, mpsc as std_mpsc};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};
use tokio::sync::mpsc;
use tokio::task::LocalSet;

/// The store on PostgreSQL, and its thread. Dropping it ends the thread, after what it was given is
/// answered.
#[derive(Debug)]
pub struct PostgresStore {
    calls: Option<mpsc::UnboundedSender<Call>>,
    shared: Arc<Shared>,
    call_max: Duration,
    durability: &'static str,
    thread: Option<JoinHandle<()>>,
}

/// What the thread and the callers both see.
#[derive(Debug)]
pub(super) struct Shared {
    epoch: AtomicU64,
    /// Writes that wait or are under way.
    ops: AtomicUsize,
    /// Reads that wait or are under way.
    reads: AtomicUsize,
}

impl Shared {
    pub fn epoch(&self) -> Epoch {
        Epoch(self.epoch.load(Ordering::Acquire))
    }

    pub fn set_epoch(&self, epoch: Epoch) {
        self.epoch.store(epoch.0, Ordering::Release);
    }

    /// Takes an epoch that the database told, unless another one was taken since it was `asked`, when
    /// the epoch was still that one: then the answer may be the older of the two.
    pub fn learn_epoch(&self, asked: Epoch, told: Epoch) {
        let (asked, told) = (asked.0, told.0);
        let order = (Ordering::AcqRel, Ordering::Acquire);
        // Whoever is behind asks again.
        let _learnt = self
            .epoch
            .compare_exchange(asked, told, order.0, order.1)
            .is_ok();
    }

    /// Whether nothing is under way.
    pub fn is_idle(&self) -> bool {
        self.ops.load(Ordering::Acquire) + self.reads.load(Ordering::Acquire) == 0
    }
}

/// A call on its way to the thread.
pub(super) enum Call {
    Commit(Pending, Vec<Op>, Locks),
    Read(Pending, StoreCall),
    RenewEpoch(Pending, Epoch),
}

/// A call that is not answered yet, and its place among those under way. Dropped without an answer, it
/// is answered `unavailable`.
pub(super) struct Pending {
    ticket: Ticket,
    sink: Option<Arc<dyn ReplySink>>,
    shared: Arc<Shared>,
    ops: usize,
    reads: usize,
    /// When nobody waits for it any more.
    pub due: Instant,
}

impl Pending {
    /// Which caller gave it: its calls keep their order.
    pub fn caller(&self) -> usize {
        self.sink
            .as_ref()
            .map_or(0, |sink| Arc::as_ptr(sink).cast::<()>() as usize)
    }

    pub fn answer(mut self, result: Result<StoreAnswer, StoreError>) {
        self.reply(result);
    }

    fn reply(&mut self, result: Result<StoreAnswer, StoreError>) {
        let Some(sink) = self.sink.take() else {
            return;
        };
        // Its place is free before its caller may give the next one.
        self.shared.ops.fetch_sub(self.ops, Ordering::AcqRel);
        self.shared.reads.fetch_sub(self.reads, Ordering::AcqRel);
        sink.reply(StoreReply {
            ticket: self.ticket,
            epoch: self.shared.epoch(),
            result,
        });
    }
}

impl Drop for Pending {
    fn drop(&mut self) {
        self.reply(Err(StoreError::Unavailable(
            "the store gave this call up".to_owned(),
        )));
    }
}

impl PostgresStore {
    /// Connects, brings the database to the newest schema, and starts the thread.
    ///
    /// # Errors
    /// [`OpenError`].
    pub fn open(options: PostgresOptions) -> Result<PostgresStore, OpenError> {
        let target = Target::parse(&options.url)?;
        let (calls, calls_rx) = mpsc::unbounded_channel();
        let (opened, opened_rx) = std_mpsc::channel();
        let shared = Arc::new(Shared {
            epoch: AtomicU64::new(0),
            ops: AtomicUsize::new(0),
            reads: AtomicUsize::new(0),
        });
        let call_max = options.call_max;
        let thread = std::thread::Builder::new()
            .name("store-io".to_owned())
            .spawn({
                let shared = Arc::clone(&shared);
                move || run(target, options, shared, calls_rx, &opened)
            })
            .map_err(|error| OpenError::Failed(error.to_string()))?;
        let opened = opened_rx.recv();
        let durability = match opened {
            Ok(Ok(durability)) => durability,
            Ok(Err(error)) => {
                // It has nothing more to do.
                let _ended = thread.join();
                return Err(error);
            }
            Err(_) => return Err(OpenError::Failed("opening the store panicked".to_owned())),
        };
        Ok(PostgresStore {
            calls: Some(calls),
            shared,
            call_max,
            durability,
            thread: Some(thread),
        })
    }

    fn pending(&self, ticket: Ticket, sink: &Arc<dyn ReplySink>) -> Pending {
        Pending {
            ticket,
            sink: Some(Arc::clone(sink)),
            shared: Arc::clone(&self.shared),
            ops: 0,
            reads: 0,
            due: Instant::now() + self.call_max,
        }
    }
}

/// Brings a database to the newest schema, and nothing else.
///
/// # Errors
/// [`OpenError`]; a database that is refused is left as it was.
pub fn migrate(options: &PostgresOptions) -> Result<(), OpenError> {
    let target = Target::parse(&options.url)?;
    let runtime = runtime().map_err(OpenError::Failed)?;
    LocalSet::new().block_on(&runtime, session::migrate(&target, 2 * CONNECT_MAX))
}

fn runtime() -> Result<tokio::runtime::Runtime, String> {
    tokio::runtime::Builder::new_current_thread()
        .enable_io()
        .enable_time()
        .build()
        .map_err(|error| error.to_string())
}

fn run(
    target: Target,
    options: PostgresOptions,
    shared: Arc<Shared>,
    mut calls: mpsc::UnboundedReceiver<Call>,
    opened: &std_mpsc::Sender<Result<&'static str, OpenError>>,
) {
    let runtime = match runtime() {
        Ok(runtime) => runtime,
        Err(text) => {
            let _unheard = opened.send(Err(OpenError::Failed(text)));
            return;
        }
    };
    let local = LocalSet::new();
    local.block_on(&runtime, async {
        match open(&target, &options, &shared).await {
            Ok(durability) => {
                let _unheard = opened.send(Ok(durability));
            }
            Err(error) => {
                let _unheard = opened.send(Err(error));
                return;
            }
        }
        let io = Rc::new(Io::new(target, options, Arc::clone(&shared)));
        lanes::start(&io);
        while let Some(call) = calls.recv().await {
            io.take(call);
        }
        // Nobody calls any more. What was taken is answered in its time, whatever the database does.
        while !shared.is_idle() {
            io.answered.notified().await;
        }
    });
    // Connections and tasks end with the set; a call that one of them still held is answered by that.
    drop(local);
}

/// The first connection: everything that must be right before the node starts.
async fn open(
    target: &Target,
    options: &PostgresOptions,
    shared: &Shared,
) -> Result<&'static str, OpenError> {
    session::migrate(target, 2 * CONNECT_MAX).await?;
    let session = Session::open(target, options.statement_max, &[]);
    let session = match tokio::time::timeout(2 * CONNECT_MAX, session).await {
        Ok(Ok(session)) => session,
        Ok(Err(text)) => return Err(OpenError::Unreachable(text)),
        Err(_) => return Err(OpenError::Unreachable("it does not answer".to_owned())),
    };
    shared.set_epoch(session.epoch());
    match session.weakness() {
        None => Ok("commit"),
        Some(weakness) if options.must_be_durable => {
            Err(OpenError::NotDurable(weakness.to_owned()))
        }
        Some(weakness) => {
            tracing::warn!(
                setting = weakness,
                "the database may forget what it committed"
            );
            Ok("relaxed")
        }
    }
}

impl Store for PostgresStore {
    fn submit(&self, ticket: Ticket, call: StoreCall, sink: &Arc<dyn ReplySink>) {
        let mut pending = self.pending(ticket, sink);
        let (under_way, count, max) = match &call {
            StoreCall::Commit(ops) | StoreCall::TryCommit(ops) => {
                pending.ops = ops.len().max(1);
                (&self.shared.ops, pending.ops, QUEUED_OPS_MAX)
            }
            StoreCall::SignIn(_)
            | StoreCall::OpenRooms(_)
            | StoreCall::Heads { .. }
            | StoreCall::Events(_)
            | StoreCall::History(_)
            | StoreCall::ListRooms(_)
            | StoreCall::GetRooms(_)
            | StoreCall::ListMembers(_)
            | StoreCall::WriteReceipts(_)
            | StoreCall::SampleTyping(_)
            | StoreCall::SetOwn(_)
            | StoreCall::OwnStates(_)
            | StoreCall::WhoShares { .. }
            | StoreCall::Blocks(_)
            | StoreCall::Search(_)
            | StoreCall::Upkeep(_)
            | StoreCall::Admin(_)
            | StoreCall::Intake(_)
            | StoreCall::Uploads(_)
            | StoreCall::Hooks(_)
            | StoreCall::RenewEpoch(_) => {
                pending.reads = 1;
                (&self.shared.reads, 1, CALLS_MAX)
            }
        };
        // A batch that is larger than the bound by itself is taken when nothing else is under way.
        let before = under_way.fetch_add(count, Ordering::AcqRel);
        if before > 0 && before + count > max {
            return pending.answer(Err(StoreError::Overloaded));
        }
        let call = match call {
            StoreCall::Commit(ops) => Call::Commit(pending, ops, Locks::Wait),
            StoreCall::TryCommit(ops) => Call::Commit(pending, ops, Locks::Try),
            StoreCall::RenewEpoch(last) => Call::RenewEpoch(pending, last),
            read => Call::Read(pending, read),
        };
        if let Some(calls) = &self.calls {
            // When the thread has ended the call is dropped, and answered by that.
            let _ended = calls.send(call);
        }
    }

    fn epoch(&self) -> Epoch {
        self.shared.epoch()
    }

    fn durability(&self) -> &'static str {
        self.durability
    }
}

impl Drop for PostgresStore {
    fn drop(&mut self) {
        self.calls = None;
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            tracing::error!("the thread of the store panicked");
        }
    }
}
