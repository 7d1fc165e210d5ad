//! What is done for those who run the service beside their requests: erasures go on here, also those that a
//! restart interrupted, or that another node began and left.
//!
//! Invariants: nothing of it is kept in memory: what is to be done stands in the store, each step may be done
//! again, and one erasure is one node's at a time. A step is given only when the one before is answered.
//!
//! The order of an erasure: the account ([`Upkeep::EraseBegin`], by the request), then each room, on the way of
//! all writes, then the user's files, which no message names any more by then, then [`Upkeep::EraseEnd`]. As long as
//! the end is not there it is asked for again.
//!
//! Old messages are dropped here too ([`Upkeep::Retain`]), by one node at a time, in stretches with pauses.

use super::Serves;
use super::requests::reply_data;
use super::shard_client::ask_shard;
use super::store_client::StoreClient;
use super::uploads::Uploads;
use crate::chat::port::upkeep::{Erasure, Upkeep, UpkeepDone};
use crate::chat::port::{Op, OpKind, ServiceAnswer, ServiceAsk, StoreAnswer, StoreCall};
use crate::limits;
use crate::protocol::{RoomId, UserId};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::Notify;

/// How often it is looked for something to do, if nobody says that there is.
const LOOK_EVERY: Duration = Duration::from_secs(2);
/// Between two steps: they leave room for what users write.
const STEP_PAUSE: Duration = Duration::from_millis(5);
/// Between two stretches of old messages that are dropped: some 8,000 messages a second.
const DROP_PAUSE: Duration = Duration::from_millis(50);
/// Longest wait for the store.
const STORE_MAX: Duration = Duration::from_secs(5);
/// Longest wait for a shard.
const SHARD_MAX: Duration = Duration::from_millis(limits::ASK_MS_MAX + 1_000);

/// What it needs of the node.
#[derive(Clone)]
pub struct UpkeepParts {
    /// The shards.
    pub shards: u16,
    /// Asks one of them.
    pub serves: Arc<Serves>,
    /// Told when there is something to do.
    pub wake: Arc<Notify>,
    /// Files of messages.
    pub uploads: Uploads,
    /// For how many days rooms keep messages that have no age of their own; 0: for ever.
    pub retention_days: u32,
}

/// For ever: does what there is to do, and waits.
pub(super) async fn run(parts: UpkeepParts, store: StoreClient) {
    let worker = Worker { parts, store };
    loop {
        match worker.erase_next().await {
            Ok(true) => continue,
            Ok(false) => (),
            // Whoever has it next goes on where this one stopped.
            Err(text) => tracing::warn!(error = text, "an erasure goes on later"),
        }
        if let Err(text) = worker.retain().await {
            tracing::warn!(error = text, "old messages are dropped later");
        }
        tokio::select! {
            () = worker.parts.wake.notified() => (),
            () = tokio::time::sleep(LOOK_EVERY) => (),
        }
    }
}

struct Worker {
    parts: UpkeepParts,
    store: StoreClient,
}

impl Worker {
    /// Takes an erasure that nobody has to its end; whether there was one.
    async fn erase_next(&self) -> Result<bool, String> {
        let mut held: Option<UserId> = None;
        loop {
            let next = match self.step(Upkeep::EraseNext(held)).await? {
                UpkeepDone::EraseNext(next) => next,
                other => return Err(format!("an answer to another step: {other:?}")),
            };
            let Some(erasure) = next else {
                return Ok(held.is_some());
            };
            held = Some(erasure.user);
            if erasure.rooms.is_empty() {
                while self.parts.uploads.remove(Some(erasure.user)).await? > 0 {
                    tokio::time::sleep(STEP_PAUSE).await;
                }
                return match self.step(Upkeep::EraseEnd(erasure.user)).await? {
                    UpkeepDone::EraseEnd(true) => {
                        tracing::info!("a user is erased");
                        Ok(true)
                    }
                    // Another node removes files of theirs, or they were told of a room meanwhile.
                    _ => Err("something of the user is left".to_owned()),
                };
            }
            for room in &erasure.rooms {
                while !self.erase_in(&erasure, *room).await? {
                    tokio::time::sleep(STEP_PAUSE).await;
                }
            }
        }
    }

    /// Drops what is older than rooms keep it, if nobody else does. Erasures that come meanwhile are done in between.
    async fn retain(&self) -> Result<(), String> {
        let days = self.parts.retention_days;
        let mut held = false;
        loop {
            let rooms = match self.step(Upkeep::RetainNext { held, days }).await? {
                UpkeepDone::RetainNext(Some(rooms)) => rooms,
                UpkeepDone::RetainNext(None) => return Ok(()),
                other => return Err(format!("an answer to another step: {other:?}")),
            };
            held = true;
            let (mut done, mut failed) = (0, None);
            for room in rooms {
                // One that cannot be dropped does not hold up the others.
                match self.retain_in(room, days).await {
                    Ok(()) => done += 1,
                    Err(text) => failed = Some(text),
                }
                tokio::time::sleep(DROP_PAUSE).await;
            }
            match failed {
                Some(text) if done == 0 => return Err(text),
                Some(text) => tracing::warn!(error = text, "old messages are dropped later"),
                None if done == 0 => return Ok(()),
                None => (),
            }
            while self.erase_next().await? {}
        }
    }

    /// Drops what is older in a room.
    async fn retain_in(&self, room: RoomId, days: u32) -> Result<(), String> {
        loop {
            match self.step(Upkeep::Retain { room, days }).await? {
                UpkeepDone::Retained(true) => return Ok(()),
                UpkeepDone::Retained(false) => tokio::time::sleep(DROP_PAUSE).await,
                other => return Err(format!("an answer to another step: {other:?}")),
            }
        }
    }

    /// Does a stretch of a room; whether that was all.
    async fn erase_in(&self, erasure: &Erasure, room: RoomId) -> Result<bool, String> {
        let op = Op {
            actor: erasure.user,
            room,
            kind: OpKind::Erase {
                requested_at: erasure.requested_at,
            },
        };
        let shard = room.bucket() % self.parts.shards;
        let asked = ask_shard(&*self.parts.serves, SHARD_MAX, shard, ServiceAsk::Write(op));
        match asked.await {
            Ok(ServiceAnswer::Reply(reply)) => match reply_data(&reply) {
                Ok(data) => Ok(data["done"] == true),
                Err(problem) => Err(format!("{problem:?}")),
            },
            Ok(_) => Err("an answer to another question".to_owned()),
            Err(unanswered) => Err(unanswered.text().to_owned()),
        }
    }

    async fn step(&self, step: Upkeep) -> Result<UpkeepDone, String> {
        match self
            .store
            .call_within(STORE_MAX, StoreCall::Upkeep(step))
            .await
        {
            Ok(StoreAnswer::Upkeep(done)) => Ok(done),
            Ok(_) => Err("an answer to another call".to_owned()),
            Err(error) => Err(format!("{error:?}")),
        }
    }
}
