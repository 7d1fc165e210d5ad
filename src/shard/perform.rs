//! Does what the core wants done.
//!
//! Invariants: every effect is performed in the turn it was made, in order; every call of the
//! store is answered, at the latest by a refusal here; the core never has more calls under way
//! than fit into the queue of answers.

use super::asks::{AskQueue, ServiceQueue, Waiting};
use super::bell::Bell;
use crate::chat::port::files::{Files, FilesAnswer, FilesAskId, FilesDone};
use crate::chat::port::{
    Decided, Identify, Identity, IdentityError, Relay, RelayNews, RelaySink, ReplySink,
    ServiceAnswer, Store, StoreCall, StoreError, StoreReply, Ticket,
};
use crate::chat::{ConnId, Effect, Input};
use crate::edge::{Chat, Edge};
use crate::limits;
use crossbeam_queue::{ArrayQueue, SegQueue};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

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

/// Where the relay's thread puts its news.
#[derive(Debug)]
pub struct News {
    /// What changes what is followed: at most a few for each bucket.
    state: SegQueue<RelayNews>,
    messages: ArrayQueue<RelayNews>,
    /// A message did not fit.
    lost: AtomicBool,
    bell: Arc<Bell>,
}

impl News {
    /// For the shard with this bell.
    pub fn new(bell: Arc<Bell>) -> News {
        News {
            state: SegQueue::new(),
            messages: ArrayQueue::new(limits::RELAY_NEWS_MAX),
            lost: AtomicBool::new(false),
            bell,
        }
    }

    fn is_empty(&self) -> bool {
        self.state.is_empty() && self.messages.is_empty() && !self.lost.load(Ordering::Relaxed)
    }

    fn take(&self) -> Option<RelayNews> {
        if let Some(news) = self.state.pop().or_else(|| self.messages.pop()) {
            return Some(news);
        }
        self.lost
            .swap(false, Ordering::Relaxed)
            .then_some(RelayNews::Lost)
    }
}

impl RelaySink for News {
    fn news(&self, news: RelayNews) {
        match news {
            RelayNews::Message(_) => {
                if self.messages.push(news).is_err() {
                    self.lost.store(true, Ordering::Relaxed);
                }
            }
            RelayNews::Up | RelayNews::Down | RelayNews::Following(_) | RelayNews::Lost => {
                self.state.push(news);
            }
        }
        self.bell.ring();
    }
}

/// The relay, and what it tells this shard.
pub struct Relayed {
    /// The relay.
    pub relay: Arc<dyn Relay>,
    /// Its news.
    pub news: Arc<News>,
}

/// Verdicts that one turn takes.
const VERDICTS_PER_TURN: usize = 1024;
/// News of the relay that one turn takes.
const NEWS_PER_TURN: usize = 1024;

/// Where verdicts on tokens go that had to wait: at most one for each connection.
#[derive(Debug)]
struct Verdicts {
    queue: SegQueue<(ConnId, Result<Identity, IdentityError>)>,
    bell: Arc<Bell>,
}

impl Verdicts {
    fn place(self: &Arc<Verdicts>, conn: ConnId) -> Decided {
        let verdicts = self.clone();
        Box::new(move |verdict| {
            verdicts.queue.push((conn, verdict));
            verdicts.bell.ring();
        })
    }
}

/// Where answers about files go: at most one for each question of the core, which are bounded there.
#[derive(Debug)]
struct FilesTold {
    queue: SegQueue<(FilesAskId, FilesAnswer)>,
    bell: Arc<Bell>,
}

impl FilesTold {
    fn place(self: &Arc<FilesTold>, id: FilesAskId) -> FilesDone {
        let told = self.clone();
        Box::new(move |answer| {
            told.queue.push((id, answer));
            told.bell.ring();
        })
    }
}

/// What the shard asks for outside itself.
pub struct Performer {
    store: Arc<dyn Store>,
    relayed: Option<Relayed>,
    identify: Arc<dyn Identify>,
    verdicts: Arc<Verdicts>,
    files: Arc<dyn Files>,
    told: Arc<FilesTold>,
    replies: Arc<Replies>,
    sink: Arc<dyn ReplySink>,
    calls: usize,
    waiting: Waiting,
}

impl std::fmt::Debug for Performer {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("Performer").finish_non_exhaustive()
    }
}

impl Performer {
    /// Performs for the shard with this bell.
    pub fn new(
        store: Arc<dyn Store>,
        relayed: Option<Relayed>,
        identify: Arc<dyn Identify>,
        files: Arc<dyn Files>,
        bell: Arc<Bell>,
    ) -> Performer {
        let told = Arc::new(FilesTold {
            queue: SegQueue::new(),
            bell: bell.clone(),
        });
        let verdicts = Arc::new(Verdicts {
            queue: SegQueue::new(),
            bell: bell.clone(),
        });
        let replies = Arc::new(Replies {
            queue: ArrayQueue::new(limits::STORE_CALLS_MAX),
            bell,
        });
        let sink = replies.clone();
        Performer {
            store,
            relayed,
            identify,
            verdicts,
            files,
            told,
            replies,
            sink,
            calls: 0,
            waiting: Waiting::default(),
        }
    }

    /// Whether an answer, a verdict or news wait to be taken.
    pub fn has_replies(&self) -> bool {
        let news = self.relayed.as_ref().is_some_and(|it| !it.news.is_empty());
        news || !self.replies.queue.is_empty()
            || !self.verdicts.queue.is_empty()
            || !self.told.queue.is_empty()
    }

    /// Gives the core the answers about files; returns how many there were.
    pub fn take_files(&mut self, chat: &mut Chat) -> usize {
        for taken in 0..limits::FILES_ASKED_MAX {
            let Some((id, answer)) = self.told.queue.pop() else {
                return taken;
            };
            chat.tell(Input::Files(id, answer));
        }
        limits::FILES_ASKED_MAX
    }

    /// Gives the core the verdicts on tokens that had to wait; returns how many there were.
    pub fn take_verdicts(&mut self, chat: &mut Chat, edge: &mut Edge) -> usize {
        for taken in 0..VERDICTS_PER_TURN {
            let Some((conn, verdict)) = self.verdicts.queue.pop() else {
                return taken;
            };
            verified(chat, edge, conn, verdict);
        }
        VERDICTS_PER_TURN
    }

    /// Gives the core the news of the relay; returns how many there were.
    pub fn take_news(&mut self, chat: &mut Chat) -> usize {
        let Some(Relayed { news, .. }) = &self.relayed else {
            return 0;
        };
        for taken in 0..NEWS_PER_TURN {
            match news.take() {
                Some(news) => chat.tell(Input::Relay(news)),
                None => return taken,
            }
        }
        NEWS_PER_TURN
    }

    /// Gives the core the requests over HTTP; returns how many there were.
    pub fn take_asks(&mut self, queue: &AskQueue, chat: &mut Chat) -> usize {
        self.waiting.take(queue, chat)
    }

    /// Gives the core what the service wants; returns how much there was.
    pub fn take_service(&mut self, queue: &ServiceQueue, chat: &mut Chat) -> usize {
        self.waiting.take_service(queue, chat)
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
                        let mut later = || self.verdicts.place(conn);
                        let verdict = self.identify.identify(&token, chat.now.unix, &mut later);
                        if let Some(verdict) = verdict {
                            verified(chat, edge, conn, verdict);
                        }
                    }
                    Effect::Store(ticket, call) => self.call(chat, edge, ticket, call),
                    Effect::Files(id, ask) => self.files.ask(ask, self.told.place(id)),
                    Effect::Relay(call) => {
                        if let Some(Relayed { relay, .. }) = &self.relayed {
                            relay.submit(call);
                        }
                    }
                    Effect::Answer(id, answer) => self.waiting.answer(id, answer),
                    Effect::Served(id, mut answer) => {
                        if let ServiceAnswer::Connections(page) = &mut answer {
                            for seen in &mut page.connections {
                                seen.address = edge.address(seen.conn);
                            }
                        }
                        self.waiting.served(id, answer);
                    }
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

/// Tells the core, and whoever counts connections that have not signed in.
fn verified(
    chat: &mut Chat,
    edge: &mut Edge,
    conn: ConnId,
    verdict: Result<Identity, IdentityError>,
) {
    if verdict.is_ok() {
        edge.authenticated(conn);
    }
    chat.tell(Input::Verified(conn, verdict));
}
