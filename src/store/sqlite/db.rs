//! The embedded store as a value: calls in, answers out, on the thread of the caller.
//!
//! It has no clock, no thread and, once created, nothing random, so the simulator drives it.
//!
//! Invariants: when a call returns, no transaction is open, whatever failed; a commit that returns
//! outcomes is on disk.

use super::marks::{Marks, MarksWriter};
use super::options::{DbOptions, OpenError};
use super::row::{Failure, refuse};
use super::search_index::{self, Unindexed};
use super::write::Batch;
use super::{erase, own, read, retain, rooms, schema};
use crate::chat::port::admin::{AdminAnswer, AdminCall};
use crate::chat::port::files::{UploadAnswer, UploadCall};
use crate::chat::port::hooks::{HookAnswer, HookCall};
use crate::chat::port::intake::{IntakeAnswer, IntakeCall};
use crate::chat::port::upkeep::{Upkeep, UpkeepDone};
use crate::chat::port::{
    Op, OpOutcome, Receipt, ReceiptOutcome, Refusal, SetOwn, SignIn, StoreAnswer, StoreCall,
    StoreError,
};
use crate::chat::sabotage::Sabotage;
use crate::protocol::{Epoch, ErrorCode, RoomId, UnixMs};
use rusqlite::Connection;
use std::cell::RefCell;
use std::collections::BTreeSet;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};

/// A database with all rules of the store.
#[derive(Debug)]
pub struct Db {
    connection: Connection,
    /// Where it is opened again after a failure of the disk; `None`: in memory.
    path: Option<PathBuf>,
    options: DbOptions,
    epoch: Epoch,
    hash_key: [u8; 32],
    reused: BTreeSet<RoomId>,
    marks_writer: MarksWriter,
    /// What the index of messages does not have yet.
    unindexed: Unindexed,
    /// For reads on this connection; a cell, because they change nothing that can be seen.
    marks: RefCell<Marks>,
    /// Whether a panic in a write is a failure of this write (in the server) or goes on (in a
    /// simulation, which is to find it).
    pub(super) catches_panics: bool,
}

impl Db {
    /// Opens or creates the database in this file. Does not lock it against other processes:
    /// [`super::SqliteStore`] does.
    ///
    /// # Errors
    /// [`OpenError`]; the file is left as it was.
    pub fn open(path: &Path, options: &DbOptions) -> Result<Db, OpenError> {
        Self::new(Some(path), options)
    }

    /// A new database in memory.
    ///
    /// # Errors
    /// [`OpenError::Io`] when there is no memory.
    pub fn in_memory(options: &DbOptions) -> Result<Db, OpenError> {
        Self::new(None, options)
    }

    fn new(path: Option<&Path>, options: &DbOptions) -> Result<Db, OpenError> {
        let (connection, meta) = schema::open_writer(path, options)?;
        let marks_writer = MarksWriter::new(&connection)?;
        Ok(Db {
            connection,
            path: path.map(Path::to_owned),
            options: options.clone(),
            epoch: meta.epoch,
            hash_key: meta.hash_key,
            reused: BTreeSet::new(),
            marks_writer,
            unindexed: Unindexed::default(),
            marks: RefCell::default(),
            catches_panics: false,
        })
    }

    /// Forgets what is not in the database, as a restart of the process would.
    pub fn restart(&mut self) {
        self.reused.clear();
    }

    /// Identity of this history.
    pub fn epoch(&self) -> Epoch {
        self.epoch
    }

    /// What a commit means: `commit` (on disk), or `relaxed` where the fault is on that does not
    /// wait for the disk.
    pub fn durability(&self) -> &'static str {
        if self.options.sabotage.is(Sabotage::SynchronousOff) {
            "relaxed"
        } else {
            "commit"
        }
    }

    /// Answers any call.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`]: of a commit, a part may stand.
    pub fn call(&mut self, now: UnixMs, call: &StoreCall) -> Result<StoreAnswer, StoreError> {
        match call {
            StoreCall::Commit(ops) | StoreCall::TryCommit(ops) => {
                self.commit(now, ops).map(StoreAnswer::Commit)
            }
            StoreCall::SignIn(users) => {
                let answer = read::answer(&self.connection, self.marks.get_mut(), call, false)?;
                if let Some(answer) = answer {
                    return Ok(answer);
                }
                let users: Vec<&SignIn> = users.iter().collect();
                self.write(now, &users, &[])?;
                self.answer(call, true)
            }
            StoreCall::RenewEpoch(last) => {
                self.renew_epoch(*last)?;
                Ok(StoreAnswer::RenewEpoch)
            }
            // The file is this program's alone: nobody could look.
            StoreCall::SampleTyping(_) => Ok(StoreAnswer::SampleTyping),
            StoreCall::WriteReceipts(receipts) => self
                .write_receipts(receipts)
                .map(StoreAnswer::WriteReceipts),
            StoreCall::SetOwn(set) => self.set_own(set).map(StoreAnswer::SetOwn),
            StoreCall::Upkeep(step) => self.upkeep(now, step).map(StoreAnswer::Upkeep),
            StoreCall::Admin(own) if own.writes() => {
                let answer = self.admin(now, own)?;
                Ok(StoreAnswer::Admin(Box::new(answer)))
            }
            StoreCall::Intake(own) if own.writes() => {
                let answer = self.intake(now, own)?;
                Ok(StoreAnswer::Intake(Box::new(answer)))
            }
            StoreCall::Uploads(own) if own.writes() => {
                let answer = self.uploads(now, own)?;
                Ok(StoreAnswer::Uploads(Box::new(answer)))
            }
            StoreCall::Hooks(own) if own.writes() => {
                let answer = self.hooks(now, own)?;
                Ok(StoreAnswer::Hooks(Box::new(answer)))
            }
            StoreCall::Hooks(own) if matches!(**own, HookCall::Rooms { .. }) => {
                // Likewise what is behind the index.
                while self.index()? {}
                self.read(call)
            }
            StoreCall::Search(_) => {
                // Nobody else brings the index up to date here.
                while self.index()? {}
                self.read(call)
            }
            StoreCall::OpenRooms(_)
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
            | StoreCall::Hooks(_) => self.read(call),
        }
    }

    /// Writes a batch of receipts.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`] when the disk failed: they may stand all the same.
    pub fn write_receipts(
        &mut self,
        receipts: &[Receipt],
    ) -> Result<Vec<ReceiptOutcome>, StoreError> {
        self.transact_own(|connection, marks| own::write_receipts(connection, marks, receipts))
    }

    /// Changes what a room is to one of its members.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`] when the disk failed: it may stand all the same.
    pub fn set_own(&mut self, set: &SetOwn) -> Result<Result<bool, Refusal>, StoreError> {
        self.transact_own(|connection, marks| own::set_own(connection, marks, set))
    }

    /// Does a step for those who run the service.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`] when the disk failed: it may stand all the same.
    pub fn upkeep(&mut self, now: UnixMs, step: &Upkeep) -> Result<UpkeepDone, StoreError> {
        let hash_key = self.hash_key;
        let done = self.transact_own(|connection, _| {
            Ok(match step {
                Upkeep::EraseBegin(user) => {
                    UpkeepDone::EraseState(erase::begin(connection, &hash_key, now, *user)?)
                }
                Upkeep::EraseState(user) => {
                    UpkeepDone::EraseState(erase::state(connection, &hash_key, *user)?)
                }
                Upkeep::EraseNext(held) => {
                    UpkeepDone::EraseNext(erase::next(connection, now, *held)?)
                }
                Upkeep::EraseEnd(user) => UpkeepDone::EraseEnd(erase::end(connection, *user)?),
                Upkeep::RetainNext { held, days } => {
                    UpkeepDone::RetainNext(retain::next(connection, now, *held, *days)?)
                }
                Upkeep::Retain { room, days } => {
                    UpkeepDone::Retained(retain::step(connection, now, *room, *days)?)
                }
            })
        })?;
        if done == UpkeepDone::EraseEnd(true) {
            // Webhooks were deleted, which the file and the log still have.
            self.unindexed.erased();
        }
        Ok(done)
    }

    /// Does what those who run the service want changed.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`] when the disk failed: it may stand all the same.
    pub fn admin(&mut self, now: UnixMs, call: &AdminCall) -> Result<AdminAnswer, StoreError> {
        self.transact_own(|connection, _| super::admin::write(connection, now, call))
    }

    /// Does what other services tell.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`] when the disk failed: it may stand all the same.
    pub fn intake(&mut self, now: UnixMs, call: &IntakeCall) -> Result<IntakeAnswer, StoreError> {
        self.transact_own(|connection, _| super::intake::write(connection, now, call))
    }

    /// Does what concerns files.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`] when the disk failed: it may stand all the same.
    pub fn uploads(&mut self, now: UnixMs, call: &UploadCall) -> Result<UploadAnswer, StoreError> {
        self.transact_own(|connection, _| super::uploads::write(connection, now, call))
    }

    /// Does what is to be told to other services.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`] when the disk failed: it may stand all the same.
    pub fn hooks(&mut self, now: UnixMs, call: &HookCall) -> Result<HookAnswer, StoreError> {
        self.transact_own(|connection, _| super::hooks::write(connection, now, call))
    }

    /// A transaction beside those of the rooms' events.
    fn transact_own<T>(
        &mut self,
        work: impl Fn(&Connection, &Marks) -> Result<T, Failure>,
    ) -> Result<T, StoreError> {
        let (connection, marks) = (&self.connection, self.marks.get_mut());
        let mut transact = || {
            connection.prepare_cached("BEGIN IMMEDIATE")?.execute([])?;
            marks.refresh(connection)?;
            let done = work(connection, marks)?;
            connection.prepare_cached("COMMIT")?.execute([])?;
            Ok(done)
        };
        let result = match self.catches_panics {
            true => catch_unwind(AssertUnwindSafe(&mut transact))
                .unwrap_or_else(|_| Err(Failure::Data("a write panicked".to_owned()))),
            false => transact(),
        };
        result.map_err(|failure: Failure| {
            self.recover(&failure);
            tracing::error!(error = ?failure, "a write failed");
            failure.into()
        })
    }

    /// Brings the index of messages nearer to what there is, by a transaction of its own that ends
    /// soon. Whether there is more to do.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`] when the disk failed: it is done later.
    pub fn index(&mut self) -> Result<bool, StoreError> {
        let done = search_index::step(&self.connection, &mut self.unindexed);
        done.map_err(|failure| {
            self.recover(&failure);
            failure.into()
        })
    }

    /// Whether there is anything that the index does not have.
    pub fn is_indexed(&self) -> bool {
        self.unindexed.is_empty()
    }

    /// Gives the history another epoch, if it still has this one.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`] when the disk failed: the epoch may have changed.
    pub fn renew_epoch(&mut self, last: Epoch) -> Result<(), StoreError> {
        match schema::renew_epoch(&self.connection, &self.options, last) {
            Ok(epoch) => {
                if epoch != self.epoch {
                    tracing::warn!(%last, now = %epoch, "the history was replaced");
                }
                self.epoch = epoch;
                Ok(())
            }
            Err(error) => {
                let failure = Failure::from(error);
                self.recover(&failure);
                Err(failure.into())
            }
        }
    }

    /// Answers a call that writes nothing.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`], also for a call that has to write.
    pub fn read(&self, call: &StoreCall) -> Result<StoreAnswer, StoreError> {
        self.answer(call, false)
    }

    fn answer(&self, call: &StoreCall, is_written: bool) -> Result<StoreAnswer, StoreError> {
        let marks = &mut self.marks.borrow_mut();
        match read::answer(&self.connection, marks, call, is_written)? {
            Some(answer) => Ok(answer),
            None => Err(StoreError::Unavailable("the call has to write".to_owned())),
        }
    }

    /// Decides these writes one after the other and commits them together.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`] when the disk failed: none of them stands for sure, any of them
    /// may.
    pub fn commit(&mut self, now: UnixMs, ops: &[Op]) -> Result<Vec<OpOutcome>, StoreError> {
        let ops: Vec<&Op> = ops.iter().collect();
        self.write(now, &[], &ops)
    }

    /// Makes users known and commits writes, in one transaction; when something in it fails that
    /// is not the world's fault, in halves, until what fails is alone.
    pub(super) fn write(
        &mut self,
        now: UnixMs,
        users: &[&SignIn],
        ops: &[&Op],
    ) -> Result<Vec<OpOutcome>, StoreError> {
        let mut outcomes = Vec::with_capacity(ops.len());
        self.write_halving(now, users, ops, &mut outcomes)?;
        assert_eq!(outcomes.len(), ops.len(), "one outcome per write");
        Ok(outcomes)
    }

    fn write_halving(
        &mut self,
        now: UnixMs,
        users: &[&SignIn],
        ops: &[&Op],
        outcomes: &mut Vec<OpOutcome>,
    ) -> Result<(), StoreError> {
        let text = match self.transact(now, users, ops) {
            Ok(mut done) => {
                outcomes.append(&mut done);
                return Ok(());
            }
            Err(Failure::World(text)) => {
                tracing::error!(error = text, writes = ops.len(), "commit failed");
                return Err(StoreError::Unavailable(text));
            }
            Err(Failure::Data(text)) => text,
        };
        match (users, ops) {
            ([], [op]) => {
                tracing::error!(error = text, room = %op.room, "write failed");
                outcomes.push(refuse(ErrorCode::Internal, "the write failed"));
                Ok(())
            }
            ([_], []) | ([], []) => {
                tracing::error!(error = text, "making a user known failed");
                Err(StoreError::Unavailable(text))
            }
            ([_, ..], [_, ..]) => {
                self.write_halving(now, users, &[], outcomes)?;
                self.write_halving(now, &[], ops, outcomes)
            }
            (users, []) => {
                let (left, right) = users.split_at(users.len() / 2);
                self.write_halving(now, left, &[], outcomes)?;
                self.write_halving(now, right, &[], outcomes)
            }
            ([], ops) => {
                let (left, right) = ops.split_at(ops.len() / 2);
                self.write_halving(now, &[], left, outcomes)?;
                self.write_halving(now, &[], right, outcomes)
            }
        }
    }

    /// One transaction: all of it, or nothing.
    fn transact(
        &mut self,
        now: UnixMs,
        users: &[&SignIn],
        ops: &[&Op],
    ) -> Result<Vec<OpOutcome>, Failure> {
        let result = if self.catches_panics {
            // What a panic leaves behind is a transaction, which is rolled back below, and a
            // connection, which is opened again.
            catch_unwind(AssertUnwindSafe(|| self.try_transact(now, users, ops)))
                .unwrap_or_else(|_| Err(Failure::Data("a write panicked".to_owned())))
        } else {
            self.try_transact(now, users, ops)
        };
        if let Err(failure) = &result {
            self.recover(failure);
        }
        result
    }

    fn try_transact(
        &mut self,
        now: UnixMs,
        users: &[&SignIn],
        ops: &[&Op],
    ) -> Result<Vec<OpOutcome>, Failure> {
        let connection = &self.connection;
        connection.prepare_cached("BEGIN IMMEDIATE")?.execute([])?;
        for sign_in in users {
            rooms::write_user(connection, now, sign_in)?;
        }
        let mut marks = self.marks_writer;
        let mut batch = Batch::new(
            connection,
            now,
            &self.hash_key,
            self.options.sabotage,
            &mut self.reused,
            &mut marks,
        );
        let mut outcomes = Vec::with_capacity(ops.len());
        for op in ops {
            outcomes.push(batch.apply(op)?);
        }
        batch.finish()?;
        // A failed commit may stand all the same: its number is used up.
        self.marks_writer = self.marks_writer.after_failure(marks);
        connection.prepare_cached("COMMIT")?.execute([])?;
        self.marks_writer = marks;
        for (op, outcome) in ops.iter().zip(&outcomes) {
            if outcome.as_ref().is_ok_and(|done| !done.events.is_empty()) {
                self.unindexed.add(op.room);
            }
            if matches!(op.kind, crate::chat::port::OpKind::Erase { .. }) {
                self.unindexed.erased();
            }
        }
        Ok(outcomes)
    }

    /// Brings the connection back to where nothing is open. After the world's fault the file is
    /// opened again, so that nothing of the failure stays in caches; if that fails too, the next
    /// call tries once more.
    fn recover(&mut self, failure: &Failure) {
        if !self.connection.is_autocommit()
            && let Err(error) = self.connection.execute_batch("ROLLBACK")
        {
            tracing::warn!(%error, "rollback failed");
        }
        let broken = !self.connection.is_autocommit() || matches!(failure, Failure::World(_));
        if let (true, Some(path)) = (broken, &self.path) {
            match schema::open_writer(Some(path), &self.options) {
                Ok((connection, meta)) => {
                    self.connection = connection;
                    self.marks = RefCell::default();
                    self.epoch = meta.epoch;
                    if let Ok(marks) = MarksWriter::new(&self.connection) {
                        self.marks_writer = marks.after_failure(self.marks_writer);
                    }
                }
                Err(error) => tracing::warn!(%error, "reopening the database failed"),
            }
        }
    }
}
