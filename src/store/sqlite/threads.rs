//! The threads of the embedded store: one that writes, two that read.
//!
//! **Group commit.** The writer takes all writes that wait, from all callers, commits them as one
//! transaction and answers them all. What arrives meanwhile is the next group: no timer, one wait
//! for the disk per group however many callers there are.
//!
//! Invariants: nobody blocks but these threads; every queue is bounded, and where it is full the
//! call is answered `overloaded` at once; a call that was taken is answered exactly once, also when
//! answering it panicked; the calls of one caller reach the writer in the order they were given.
//!
//! A sign-in goes to a reader, and from there to the writer only if the user is unknown or is
//! called differently by now, and then back to a reader: ten thousand users who reconnect write
//! nothing, and no description of rooms is made on the writer.

use super::db::Db;
use super::marks::Marks;
use super::options::{
    CALLS_MAX, GROUP_CALLS_MAX, GROUP_OPS_MAX, INDEX_EVERY, INDEX_LATE_MAX, INDEX_MORE, OpenError,
    QUEUED_OPS_MAX, READERS, SIGN_INS_WRITING_MAX, SqliteOptions,
};
use super::{read, schema};
use crate::chat::port::admin::AdminCall;
use crate::chat::port::files::UploadCall;
use crate::chat::port::hooks::HookCall;
use crate::chat::port::intake::IntakeCall;
use crate::chat::port::upkeep::Upkeep;
use crate::chat::port::{
    Op, OpOutcome, Receipt, ReplySink, SetOwn, SignIn, Store, StoreAnswer, StoreCall, StoreError,
    StoreReply, Ticket,
};
use crate::protocol::{Epoch, UnixMs};
use crossbeam_channel::{Receiver, RecvTimeoutError, Sender, TrySendError};
use rusqlite::Connection;
use std::fs::{File, TryLockError};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::thread::JoinHandle;
use std::time::Instant;

/// Name of the database in the data folder.
pub(super) const DATABASE_FILE: &str = "chat.db";
/// Name of the file in the data folder that is locked while the database is open.
const LOCK_FILE: &str = "chat.lock";

/// What a step of upkeep weighs in a group.
const UPKEEP_OPS: usize = 100;

/// The embedded store: a database in a data folder, and its threads. Dropping it ends them, after
/// what they were given is done.
#[derive(Debug)]
pub struct SqliteStore {
    writes: Option<Sender<Write>>,
    reads: Option<Sender<Read>>,
    queued_ops: Arc<AtomicUsize>,
    /// Set by the writer alone.
    epoch: Arc<AtomicU64>,
    durability: &'static str,
    threads: Vec<JoinHandle<()>>,
    /// Last, so that the folder is free when the threads have ended.
    _lock: FolderLock,
}

/// Nobody else may open the data folder. The system releases it when the process ends, however it
/// ends. Dropped, it is unlocked, not only closed: a child process that is just being started has a
/// copy of the open file until its exec, and a lock that is only closed lives as long as any copy.
#[derive(Debug)]
pub(super) struct FolderLock(File);

impl Drop for FolderLock {
    fn drop(&mut self) {
        if let Err(error) = self.0.unlock() {
            tracing::warn!(%error, "the data folder could not be unlocked");
        }
    }
}

impl SqliteStore {
    /// Opens or creates the database of this data folder, and the folder itself.
    ///
    /// # Errors
    /// [`OpenError`]; [`OpenError::InUse`] while another process, or another store of this one,
    /// has the folder open.
    pub fn open(folder: &Path, options: SqliteOptions) -> Result<SqliteStore, OpenError> {
        std::fs::create_dir_all(folder)?;
        let lock = lock(folder)?;
        let path = folder.join(DATABASE_FILE);
        let mut db = Db::open(&path, &options.db)?;
        db.catches_panics = true;
        // The names of new files are on disk, as SQLite does itself for those it makes later.
        File::open(folder)?.sync_all()?;
        let durability = db.durability();
        let epoch = Arc::new(AtomicU64::new(db.epoch().0));

        let (writes, writes_rx) = crossbeam_channel::bounded(CALLS_MAX);
        let (reads, reads_rx) = crossbeam_channel::bounded(CALLS_MAX);
        let (written, written_rx) = crossbeam_channel::bounded(SIGN_INS_WRITING_MAX);
        let queued_ops = Arc::new(AtomicUsize::new(0));
        let sign_ins_writing = Arc::new(AtomicUsize::new(0));
        let mut threads = Vec::with_capacity(1 + READERS);
        for number in 1..=READERS {
            let reader = Reader {
                connection: schema::open_reader(&path)?,
                marks: Marks::default(),
                path: path.clone(),
                calls: reads_rx.clone(),
                written: written_rx.clone(),
                writes: Some(writes.clone()),
                sign_ins_writing: Arc::clone(&sign_ins_writing),
            };
            threads.push(spawn(format!("store-read-{number}"), move || reader.run())?);
        }
        let writer = Writer {
            db,
            index_at: Instant::now(),
            clock: options.clock,
            epoch: Arc::clone(&epoch),
            calls: writes_rx,
            queued_ops: Arc::clone(&queued_ops),
            written,
        };
        threads.push(spawn("store-write".to_owned(), move || writer.run())?);
        Ok(SqliteStore {
            writes: Some(writes),
            reads: Some(reads),
            queued_ops,
            epoch,
            durability,
            threads,
            _lock: lock,
        })
    }
}

fn spawn(name: String, run: impl FnOnce() + Send + 'static) -> Result<JoinHandle<()>, OpenError> {
    Ok(std::thread::Builder::new().name(name).spawn(run)?)
}

pub(super) fn lock(folder: &Path) -> Result<FolderLock, OpenError> {
    let file = File::options()
        .create(true)
        .truncate(false)
        .write(true)
        .open(folder.join(LOCK_FILE))?;
    match file.try_lock() {
        Ok(()) => Ok(FolderLock(file)),
        Err(TryLockError::WouldBlock) => Err(OpenError::InUse(folder.to_owned())),
        Err(TryLockError::Error(error)) => Err(error.into()),
    }
}

impl Store for SqliteStore {
    fn submit(&self, ticket: Ticket, call: StoreCall, sink: &Arc<dyn ReplySink>) {
        let pending = Pending {
            ticket,
            epoch: Arc::clone(&self.epoch),
            sink: Some(Arc::clone(sink)),
            writing: None,
        };
        match call {
            StoreCall::Commit(ops) | StoreCall::TryCommit(ops) => {
                let count = ops.len();
                // Counted before it is sent, so that the writer never counts it off first.
                let queued = self.queued_ops.fetch_add(count, Ordering::Relaxed);
                if queued > 0 && queued + count > QUEUED_OPS_MAX {
                    self.queued_ops.fetch_sub(count, Ordering::Relaxed);
                    return pending.answer(Err(StoreError::Overloaded));
                }
                let sent = give(&self.writes, Write::Commit(pending, ops));
                if let Err((write, error)) = sent {
                    self.queued_ops.fetch_sub(count, Ordering::Relaxed);
                    write.into_pending().answer(Err(error));
                }
            }
            StoreCall::RenewEpoch(last) => {
                let sent = give(&self.writes, Write::RenewEpoch(pending, last));
                if let Err((write, error)) = sent {
                    write.into_pending().answer(Err(error));
                }
            }
            // The file is this program's alone: nobody could look.
            StoreCall::SampleTyping(_) => pending.answer(Ok(StoreAnswer::SampleTyping)),
            StoreCall::WriteReceipts(receipts) => {
                let sent = give(&self.writes, Write::Receipts(pending, receipts));
                if let Err((write, error)) = sent {
                    write.into_pending().answer(Err(error));
                }
            }
            StoreCall::SetOwn(set) => {
                let sent = give(&self.writes, Write::SetOwn(pending, set));
                if let Err((write, error)) = sent {
                    write.into_pending().answer(Err(error));
                }
            }
            StoreCall::Upkeep(step) => {
                let sent = give(&self.writes, Write::Upkeep(pending, step));
                if let Err((write, error)) = sent {
                    write.into_pending().answer(Err(error));
                }
            }
            StoreCall::Admin(call) if call.writes() => {
                let sent = give(&self.writes, Write::Admin(pending, call));
                if let Err((write, error)) = sent {
                    write.into_pending().answer(Err(error));
                }
            }
            StoreCall::Intake(call) if call.writes() => {
                let sent = give(&self.writes, Write::Intake(pending, call));
                if let Err((write, error)) = sent {
                    write.into_pending().answer(Err(error));
                }
            }
            StoreCall::Uploads(call) if call.writes() => {
                let sent = give(&self.writes, Write::Uploads(pending, call));
                if let Err((write, error)) = sent {
                    write.into_pending().answer(Err(error));
                }
            }
            StoreCall::Hooks(call) if call.writes() => {
                let sent = give(&self.writes, Write::Hooks(pending, call));
                if let Err((write, error)) = sent {
                    write.into_pending().answer(Err(error));
                }
            }
            StoreCall::SignIn(_)
            | StoreCall::OpenRooms(_)
            | StoreCall::Heads { .. }
            | StoreCall::Events(_)
            | StoreCall::History(_)
            | StoreCall::ListRooms(_)
            | StoreCall::GetRooms(_)
            | StoreCall::ListMembers(_)
            | StoreCall::OwnStates(_)
            | StoreCall::WhoShares { .. }
            | StoreCall::Blocks(_)
            | StoreCall::Admin(_)
            | StoreCall::Intake(_)
            | StoreCall::Uploads(_)
            | StoreCall::Hooks(_)
            | StoreCall::Search(_) => {
                if let Err((read, error)) = give(&self.reads, Read { pending, call }) {
                    read.pending.answer(Err(error));
                }
            }
        }
    }

    fn epoch(&self) -> Epoch {
        Epoch(self.epoch.load(Ordering::Acquire))
    }

    fn durability(&self) -> &'static str {
        self.durability
    }
}

impl Drop for SqliteStore {
    fn drop(&mut self) {
        // The readers end when nobody can call them, the writer when they ended too, and then the
        // readers have nothing to wait for from the writer.
        self.writes = None;
        self.reads = None;
        for thread in self.threads.drain(..) {
            if thread.join().is_err() {
                tracing::error!("a thread of the store panicked");
            }
        }
    }
}

fn give<T>(queue: &Option<Sender<T>>, item: T) -> Result<(), (T, StoreError)> {
    let stopped = || StoreError::Unavailable("the store has stopped".to_owned());
    match queue.as_ref() {
        Some(queue) => queue.try_send(item).map_err(|error| match error {
            TrySendError::Full(item) => (item, StoreError::Overloaded),
            TrySendError::Disconnected(item) => (item, stopped()),
        }),
        None => Err((item, stopped())),
    }
}

/// A call that is not answered yet. Dropped without an answer, by a panic, it is answered
/// `unavailable`.
struct Pending {
    ticket: Ticket,
    epoch: Arc<AtomicU64>,
    sink: Option<Arc<dyn ReplySink>>,
    /// Held by a sign-in that went to the writer.
    writing: Option<Writing>,
}

/// One of the [`SIGN_INS_WRITING_MAX`] places of sign-ins at the writer, until it is answered.
struct Writing(Arc<AtomicUsize>);

impl Writing {
    fn take(places: &Arc<AtomicUsize>) -> Option<Writing> {
        // Taken first and then looked at: dropping it gives it back.
        let before = places.fetch_add(1, Ordering::Relaxed);
        let place = Writing(Arc::clone(places));
        (before < SIGN_INS_WRITING_MAX).then_some(place)
    }
}

impl Drop for Writing {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Pending {
    fn answer(mut self, result: Result<StoreAnswer, StoreError>) {
        self.reply(result);
    }

    fn reply(&mut self, result: Result<StoreAnswer, StoreError>) {
        if let Some(sink) = self.sink.take() {
            sink.reply(StoreReply {
                ticket: self.ticket,
                epoch: Epoch(self.epoch.load(Ordering::Acquire)),
                result,
            });
        }
    }
}

impl Drop for Pending {
    fn drop(&mut self) {
        self.reply(Err(StoreError::Unavailable(
            "the store failed on this call".to_owned(),
        )));
    }
}

/// What waits for the writer.
enum Write {
    Commit(Pending, Vec<Op>),
    SignIn(Pending, Vec<SignIn>),
    /// In a transaction of its own, after that of the group.
    Receipts(Pending, Vec<Receipt>),
    SetOwn(Pending, SetOwn),
    Upkeep(Pending, Upkeep),
    /// Likewise.
    Admin(Pending, Box<AdminCall>),
    /// Likewise.
    Intake(Pending, Box<IntakeCall>),
    /// Likewise.
    Uploads(Pending, Box<UploadCall>),
    /// Likewise.
    Hooks(Pending, Box<HookCall>),
    /// Done alone, in its turn.
    RenewEpoch(Pending, Epoch),
}

impl Write {
    fn ops(&self) -> usize {
        match self {
            Write::Commit(_, ops) => ops.len(),
            Write::SignIn(_, users) => users.len(),
            Write::Receipts(_, receipts) => receipts.len(),
            Write::SetOwn(..)
            | Write::Admin(..)
            | Write::Intake(..)
            | Write::Uploads(..)
            | Write::Hooks(..) => 1,
            Write::Upkeep(..) => UPKEEP_OPS,
            Write::RenewEpoch(..) => GROUP_OPS_MAX,
        }
    }

    fn into_pending(self) -> Pending {
        match self {
            Write::Commit(pending, _)
            | Write::SignIn(pending, _)
            | Write::Receipts(pending, _)
            | Write::SetOwn(pending, _)
            | Write::Upkeep(pending, _)
            | Write::Admin(pending, _)
            | Write::Intake(pending, _)
            | Write::Uploads(pending, _)
            | Write::Hooks(pending, _)
            | Write::RenewEpoch(pending, _) => pending,
        }
    }
}

struct Writer {
    db: Db,
    /// When the index of messages is brought up to date next, if there is anything to do.
    index_at: Instant,
    clock: Arc<dyn Fn() -> UnixMs + Send + Sync>,
    epoch: Arc<AtomicU64>,
    calls: Receiver<Write>,
    queued_ops: Arc<AtomicUsize>,
    /// Sign-ins whose users are known now.
    written: Sender<Read>,
}

impl Writer {
    /// The next call. While there is none, and now and then while there are many, the index of messages
    /// is brought up to date.
    fn receive(&mut self) -> Option<Write> {
        loop {
            if self.db.is_indexed() {
                return self.calls.recv().ok();
            }
            match self.calls.recv_deadline(self.index_at) {
                Ok(call) if self.index_at + INDEX_LATE_MAX > Instant::now() => return Some(call),
                Err(RecvTimeoutError::Disconnected) => return None,
                call => {
                    self.index();
                    if let Ok(call) = call {
                        return Some(call);
                    }
                }
            }
        }
    }

    fn index(&mut self) {
        let result = catch_unwind(AssertUnwindSafe(|| self.db.index()));
        let wait = match result {
            Ok(Ok(true)) => INDEX_MORE,
            Ok(Ok(false)) => INDEX_EVERY,
            Ok(Err(error)) => {
                tracing::warn!(?error, "messages were not indexed");
                INDEX_LATE_MAX
            }
            Err(_) => {
                tracing::error!("indexing messages panicked");
                INDEX_LATE_MAX
            }
        };
        self.index_at = Instant::now() + wait;
    }

    fn run(mut self) {
        // Taken from the queue, but too much for the group that was being made.
        let mut next: Option<Write> = None;
        while let Some(first) = next.take().or_else(|| self.receive()) {
            let mut ops = first.ops();
            let mut group = vec![first];
            while group.len() < GROUP_CALLS_MAX && ops < GROUP_OPS_MAX {
                match self.calls.try_recv() {
                    Ok(call) if ops + call.ops() > GROUP_OPS_MAX => {
                        next = Some(call);
                        break;
                    }
                    Ok(call) => {
                        ops += call.ops();
                        group.push(call);
                    }
                    Err(_) => break,
                }
            }
            // A panic of a write is caught in `Db`; here it could only come from answering. What
            // was not answered is, by being dropped.
            if catch_unwind(AssertUnwindSafe(|| self.commit(group))).is_err() {
                tracing::error!("answering a commit panicked");
            }
        }
    }

    fn commit(&mut self, group: Vec<Write>) {
        let (mut ops, mut users, mut renewed) = (Vec::new(), Vec::new(), None);
        for write in &group {
            match write {
                Write::Commit(_, more) => ops.extend(more),
                Write::SignIn(_, more) => users.extend(more),
                Write::RenewEpoch(_, last) => renewed = Some(self.db.renew_epoch(*last)),
                Write::Receipts(..)
                | Write::SetOwn(..)
                | Write::Upkeep(..)
                | Write::Admin(..)
                | Write::Intake(..)
                | Write::Uploads(..)
                | Write::Hooks(..) => {}
            }
        }
        self.queued_ops.fetch_sub(ops.len(), Ordering::Relaxed);
        let was_indexed = self.db.is_indexed();
        let result = match users.is_empty() && ops.is_empty() {
            true => Ok(Vec::new()),
            false => self.db.write((self.clock)(), &users, &ops),
        };
        if was_indexed && !ops.is_empty() {
            self.index_at = Instant::now() + INDEX_EVERY;
        }
        self.epoch.store(self.db.epoch().0, Ordering::Release);
        let mut outcomes = result.map(Vec::into_iter);
        for write in group {
            match write {
                Write::Commit(pending, ops) => pending.answer(match &mut outcomes {
                    Ok(outcomes) => {
                        let own: Vec<OpOutcome> = outcomes.take(ops.len()).collect();
                        Ok(StoreAnswer::Commit(own))
                    }
                    Err(error) => Err(error.clone()),
                }),
                Write::SignIn(pending, users) => match &outcomes {
                    Ok(_) => {
                        let call = StoreCall::SignIn(users);
                        // Never full: it holds as many as may be at the writer.
                        if let Err(error) = self.written.try_send(Read { pending, call }) {
                            error
                                .into_inner()
                                .pending
                                .answer(Err(StoreError::Overloaded));
                        }
                    }
                    Err(error) => pending.answer(Err(error.clone())),
                },
                Write::Receipts(pending, receipts) => {
                    let written = self.db.write_receipts(&receipts);
                    pending.answer(written.map(StoreAnswer::WriteReceipts));
                }
                Write::SetOwn(pending, set) => {
                    pending.answer(self.db.set_own(&set).map(StoreAnswer::SetOwn));
                }
                Write::Upkeep(pending, step) => {
                    let done = self.db.upkeep((self.clock)(), &step);
                    pending.answer(done.map(StoreAnswer::Upkeep));
                }
                Write::Admin(pending, call) => {
                    let done = self.db.admin((self.clock)(), &call);
                    pending.answer(done.map(|answer| StoreAnswer::Admin(Box::new(answer))));
                }
                Write::Intake(pending, call) => {
                    let done = self.db.intake((self.clock)(), &call);
                    pending.answer(done.map(|answer| StoreAnswer::Intake(Box::new(answer))));
                }
                Write::Uploads(pending, call) => {
                    let done = self.db.uploads((self.clock)(), &call);
                    pending.answer(done.map(|answer| StoreAnswer::Uploads(Box::new(answer))));
                }
                Write::Hooks(pending, call) => {
                    let done = self.db.hooks((self.clock)(), &call);
                    pending.answer(done.map(|answer| StoreAnswer::Hooks(Box::new(answer))));
                }
                Write::RenewEpoch(pending, _) => {
                    let renewed = renewed.take().unwrap_or(Err(StoreError::Overloaded));
                    pending.answer(renewed.map(|()| StoreAnswer::RenewEpoch));
                }
            }
        }
    }
}

/// What waits for a reader.
struct Read {
    pending: Pending,
    call: StoreCall,
}

struct Reader {
    connection: Connection,
    marks: Marks,
    path: PathBuf,
    calls: Receiver<Read>,
    written: Receiver<Read>,
    /// For sign-ins that have to write; given up when nobody calls any more.
    writes: Option<Sender<Write>>,
    sign_ins_writing: Arc<AtomicUsize>,
}

impl Reader {
    fn run(mut self) {
        loop {
            // Sign-ins that were written first: their callers have waited for longer.
            crossbeam_channel::select_biased! {
                recv(self.written) -> read => match read {
                    Ok(read) => self.answer(read),
                    Err(_) => break,
                },
                recv(self.calls) -> read => match read {
                    Ok(read) => self.answer(read),
                    Err(_) => {
                        self.writes = None;
                        // The writer ends when no reader can call it any more.
                        while let Ok(read) = self.written.recv() {
                            self.answer(read);
                        }
                        break;
                    }
                },
            }
        }
    }

    fn answer(&mut self, read: Read) {
        let Read { pending, call } = read;
        let is_written = pending.writing.is_some();
        let answer = catch_unwind(AssertUnwindSafe(|| {
            read::answer(&self.connection, &mut self.marks, &call, is_written)
        }));
        match answer {
            Ok(Ok(Some(answer))) => pending.answer(Ok(answer)),
            Ok(Ok(None)) => self.write(pending, call),
            Ok(Err(failure)) => {
                tracing::error!(error = ?failure, "read failed");
                pending.answer(Err(failure.into()));
                self.recover();
            }
            Err(_) => {
                tracing::error!("a read panicked");
                drop(pending);
                self.recover();
            }
        }
    }

    fn write(&self, mut pending: Pending, call: StoreCall) {
        let StoreCall::SignIn(users) = call else {
            let text = "not a read".to_owned();
            return pending.answer(Err(StoreError::Unavailable(text)));
        };
        pending.writing = Writing::take(&self.sign_ins_writing);
        if pending.writing.is_none() {
            return pending.answer(Err(StoreError::Overloaded));
        }
        let sent = give(&self.writes, Write::SignIn(pending, users));
        if let Err((write, error)) = sent {
            write.into_pending().answer(Err(error));
        }
    }

    /// Opens the file again; if that fails too, the next failure tries once more.
    fn recover(&mut self) {
        match schema::open_reader(&self.path) {
            Ok(connection) => {
                self.connection = connection;
                self.marks = Marks::default();
            }
            Err(error) => tracing::warn!(%error, "reopening the database failed"),
        }
    }
}
