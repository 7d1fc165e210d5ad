//! Does what the core wants done.
//!
//! Invariants: every effect is performed in the turn it was made, in order; every call of the
//! store is answered, at the latest by a refusal here; the core never has more calls under way
//! than fit into the queue of answers.

use super::bell::Bell;
use crate::chat::port::{Identify, ReplySink, Store, StoreCall, StoreError, StoreReply, Ticket};
use crate::chat::{Effect, Input};
use crate::edge::{Chat, Edge};
use crate::limits;
use crossbeam_queue::ArrayQueue;
use std::sync::Arc;

/// Where the store's threads put their answers.
#[derive(Debug)]
pub struct Replies {
    queue: ArrayQueue<StoreReply>,
    bell: Arc<Bell>,
}

impl ReplySink for Replies {
    fn reply(&self, reply: StoreReply) {
        let pushed = self.queue.push(reply);
        assert!(pushed.is_ok(), "the store answered a call twice");
        self.bell.ring();
    }
}

/// What the shard asks for outside itself.
pub struct Performer {
    store: Arc<dyn Store>,
    identify: Arc<dyn Identify>,
    replies: Arc<Replies>,
    sink: Arc<dyn ReplySink>,
    calls: usize,
}

impl std::fmt::Debug for Performer {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("Performer").finish_non_exhaustive()
    }
}

impl Performer {
    /// Performs for the shard with this bell.
    pub fn new(store: Arc<dyn Store>, identify: Arc<dyn Identify>, bell: Arc<Bell>) -> Performer {
        let replies = Arc::new(Replies {
            queue: ArrayQueue::new(limits::STORE_CALLS_MAX),
            bell,
        });
        let sink = replies.clone();
        Performer {
            store,
            identify,
            replies,
            sink,
            calls: 0,
        }
    }

    /// Whether an answer waits to be taken.
    pub fn has_replies(&self) -> bool {
        !self.replies.queue.is_empty()
    }

    /// Gives the core the answers of the store; returns how many there were.
    pub fn take_replies(&mut self, chat: &mut Chat) -> usize {
        let mut taken = 0;
        // No more than may be under way, so this ends.
        while taken < limits::STORE_CALLS_MAX
            && let Some(reply) = self.replies.queue.pop()
        {
            assert!(self.calls > 0, "the store answered a call twice");
            self.calls -= 1;
            taken += 1;
            chat.tell(Input::Store(reply));
        }
        taken
    }

    /// Performs the effects, those that follow from them too. Returns whether draining is done.
    pub fn perform(&mut self, chat: &mut Chat, edge: &mut Edge) -> bool {
        let mut drained = false;
        let mut effects = std::mem::take(&mut chat.effects);
        while !effects.is_empty() {
            for effect in effects.drain(..) {
                match effect {
                    Effect::Verify(conn, token) => {
                        let identity = self.identify.identify(&token, chat.now.unix);
                        chat.tell(Input::Verified(conn, identity));
                    }
                    Effect::Store(ticket, call) => self.call(chat, edge, ticket, call),
                    Effect::Flush(conn) => edge.want_flush(conn),
                    Effect::Close(conn, code) => edge.close(chat, conn, code),
                    Effect::Drained => drained = true,
                }
            }
            std::mem::swap(&mut effects, &mut chat.effects);
        }
        // The larger of the two allocations is kept for the next turn.
        chat.effects = effects;
        drained
    }

    fn call(&mut self, chat: &mut Chat, edge: &mut Edge, ticket: Ticket, call: StoreCall) {
        if self.calls >= limits::STORE_CALLS_MAX {
            edge.stats.store_refused += 1;
            chat.tell(Input::Store(StoreReply {
                ticket,
                epoch: self.store.epoch(),
                result: Err(StoreError::Overloaded),
            }));
            return;
        }
        self.calls += 1;
        self.store.submit(ticket, call, &self.sink);
    }
}
