//! Requests over HTTP on their way into a shard and back.
//!
//! Invariants: the queue in front of a shard is bounded, and full means "refuse"; the core answers each ask
//! once, so the table of those who wait is bounded by what the core takes.

use crate::chat::Input;
use crate::chat::port::{
    Answer, Ask, AskId, Asked, Done, ServiceAnswer, ServiceAsked, ServiceDone,
};
use crate::edge::Chat;
use crate::limits;
use crossbeam_queue::ArrayQueue;
use std::collections::HashMap;

/// Requests over HTTP that wait to be given to the core.
pub struct AskQueue(ArrayQueue<Asked>);

impl Default for AskQueue {
    fn default() -> AskQueue {
        AskQueue(ArrayQueue::new(limits::ASKS_MAX))
    }
}

impl std::fmt::Debug for AskQueue {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter
            .debug_tuple("AskQueue")
            .field(&self.0.len())
            .finish()
    }
}

impl AskQueue {
    /// Takes one, from any thread; whether there was room for it.
    #[must_use]
    pub fn push(&self, asked: Asked) -> bool {
        self.0.push(asked).is_ok()
    }

    /// Whether nothing waits.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Ends those that wait, unanswered.
    pub fn clear(&self) {
        while self.0.pop().is_some() {}
    }
}

/// What the service itself wants and that waits to be given to the core.
pub struct ServiceQueue(ArrayQueue<ServiceAsked>);

impl Default for ServiceQueue {
    fn default() -> ServiceQueue {
        ServiceQueue(ArrayQueue::new(limits::SERVICE_ASKS_MAX))
    }
}

impl std::fmt::Debug for ServiceQueue {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter
            .debug_tuple("ServiceQueue")
            .field(&self.0.len())
            .finish()
    }
}

impl ServiceQueue {
    /// Takes one, from any thread; whether there was room for it.
    #[must_use]
    pub fn push(&self, asked: ServiceAsked) -> bool {
        self.0.push(asked).is_ok()
    }

    /// Whether nothing waits.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Ends those that wait, unanswered.
    pub fn clear(&self) {
        while self.0.pop().is_some() {}
    }
}

/// Those who wait for an answer of this shard's core.
#[derive(Default)]
pub struct Waiting {
    next: AskId,
    done: HashMap<AskId, Waiter>,
}

enum Waiter {
    Client(Done),
    Service(ServiceDone),
}

impl Waiting {
    /// Gives the core what has come; returns how many there were.
    pub fn take(&mut self, queue: &AskQueue, chat: &mut Chat) -> usize {
        for taken in 0..limits::ASKS_MAX {
            let Some(asked) = queue.0.pop() else {
                return taken;
            };
            let id = self.next;
            self.next += 1;
            self.done.insert(id, Waiter::Client(asked.done));
            chat.tell(Input::Ask(Box::new(Ask {
                id,
                identity: asked.identity,
                command: asked.command,
            })));
        }
        limits::ASKS_MAX
    }

    /// Gives the core what the service wants; returns how much there was.
    pub fn take_service(&mut self, queue: &ServiceQueue, chat: &mut Chat) -> usize {
        for taken in 0..limits::SERVICE_ASKS_MAX {
            let Some(asked) = queue.0.pop() else {
                return taken;
            };
            let id = self.next;
            self.next += 1;
            self.done.insert(id, Waiter::Service(asked.done));
            chat.tell(Input::Serve(id, Box::new(asked.ask)));
        }
        limits::SERVICE_ASKS_MAX
    }

    /// Passes on an answer.
    pub fn answer(&mut self, id: AskId, answer: Answer) {
        match self.done.remove(&id) {
            Some(Waiter::Client(done)) => done(answer),
            Some(Waiter::Service(done)) => done(ServiceAnswer::Reply(answer.reply)),
            None => (),
        }
    }

    /// Passes on an answer to the service.
    pub fn served(&mut self, id: AskId, answer: ServiceAnswer) {
        if let Some(Waiter::Service(done)) = self.done.remove(&id) {
            done(answer);
        }
    }
}
