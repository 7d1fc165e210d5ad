//! Calls a store and waits for its answers; the backends under test.

use crate::postgres_server as postgres;
use caffis_chat::chat::port::*;
use caffis_chat::protocol::block::BlockChange;
use caffis_chat::protocol::view::{All, Mention, Message, Role, RoomKind};
use caffis_chat::protocol::{ClientMsgId, ErrorCode, RoomId, Seq, UnixMs, UserId};
use caffis_chat::store::postgres::{PostgresOptions, PostgresStore};
use caffis_chat::store::sqlite::{SqliteOptions, SqliteStore};
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, mpsc};
use std::time::{Duration, Instant};
use uuid::Uuid;

/// Time of the first commit of every test, ms.
pub const START_MS: u64 = 1_700_000_000_000;

/// Opens the store in a folder, with a clock in ms.
type Open = Box<dyn Fn(&Path, Arc<AtomicU64>) -> Arc<dyn Store>>;

/// A store, how it is opened again, and the clock it is told.
pub struct Backend {
    store: Option<Arc<dyn Store>>,
    /// Opens the same data once more.
    open: Open,
    clock_ms: Arc<AtomicU64>,
    folder: tempfile::TempDir,
    /// Its own database on the shared server, if it has one.
    database: Option<String>,
}

impl Backend {
    /// One of each.
    pub fn all() -> Vec<Backend> {
        vec![Self::sqlite(), Self::postgres()]
    }

    /// The embedded store, on a new file.
    pub fn sqlite() -> Backend {
        Self::new(Box::new(|folder, clock_ms| {
            let options = SqliteOptions {
                clock: Arc::new(move || UnixMs(clock_ms.load(Ordering::SeqCst))),
                ..SqliteOptions::default()
            };
            Arc::new(SqliteStore::open(folder, options).expect("the store opens"))
        }))
    }

    /// The store on PostgreSQL, in a new schema of a database that all tests share.
    pub fn postgres() -> Backend {
        Self::at(postgres::shared().schema())
    }

    /// The store on PostgreSQL, with a new database of its own.
    pub fn postgres_alone() -> Backend {
        let server = postgres::shared();
        let database = server.database();
        let mut backend = Self::at(server.url(&database));
        backend.database = Some(database);
        backend
    }

    fn at(url: String) -> Backend {
        let open: Open = Box::new(move |_, clock_ms| {
            Arc::new(PostgresStore::open(patient(&url, clock_ms)).expect("the store opens"))
        });
        Self::new(open)
    }

    /// The name of its own database on the shared server.
    pub fn database(&self) -> &str {
        self.database.as_deref().expect("a database of its own")
    }

    fn new(open: Open) -> Backend {
        let folder = tempfile::tempdir().expect("a folder");
        let clock_ms = Arc::new(AtomicU64::new(START_MS));
        let store = open(folder.path(), Arc::clone(&clock_ms));
        Backend {
            store: Some(store),
            open,
            clock_ms,
            folder,
            database: None,
        }
    }

    pub fn store(&self) -> &Arc<dyn Store> {
        self.store.as_ref().expect("open")
    }

    /// The data folder.
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// Ends the store.
    pub fn close(&mut self) {
        self.store = None;
    }

    /// Ends the store and opens its data again.
    pub fn reopen(&mut self) {
        self.close();
        self.store = Some((self.open)(self.folder.path(), Arc::clone(&self.clock_ms)));
    }

    pub fn set_clock_ms(&self, ms: u64) {
        self.clock_ms.store(ms, Ordering::SeqCst);
    }

    pub fn call(&self, call: StoreCall) -> StoreAnswer {
        self.try_call(call).expect("the store answers")
    }

    pub fn try_call(&self, call: StoreCall) -> Result<StoreAnswer, StoreError> {
        ask(self.store(), call)
    }

    pub fn commit(&self, ops: Vec<Op>) -> Vec<OpOutcome> {
        let count = ops.len();
        let StoreAnswer::Commit(outcomes) = self.call(StoreCall::Commit(ops)) else {
            panic!("not the answer to a commit");
        };
        assert_eq!(outcomes.len(), count, "one outcome per write");
        outcomes
    }

    pub fn one(&self, op: Op) -> OpOutcome {
        self.commit(vec![op]).remove(0)
    }

    /// A write that must stand.
    pub fn done(&self, op: Op) -> OpDone {
        self.one(op).expect("not refused")
    }

    /// A write that must be refused.
    pub fn refused(&self, op: Op) -> ErrorCode {
        self.one(op).expect_err("refused").code
    }

    /// Makes users 1 to `count` known, called u1, u2, …
    pub fn users(&self, count: u128) {
        for chunk in (1..=count).collect::<Vec<_>>().chunks(256) {
            let users = chunk.iter().map(|n| sign_in(*n, Some(&format!("u{n}"))));
            let StoreAnswer::SignIn(_) = self.call(StoreCall::SignIn(users.collect())) else {
                panic!("not the answer to a sign-in");
            };
        }
    }

    pub fn sign_in(&self, n: u128) -> SignedIn {
        self.sign_in_as(sign_in(n, None))
    }

    pub fn sign_in_as(&self, sign_in: SignIn) -> SignedIn {
        let StoreAnswer::SignIn(mut users) = self.call(StoreCall::SignIn(vec![sign_in])) else {
            panic!("not the answer to a sign-in");
        };
        assert_eq!(users.len(), 1);
        users.remove(0).expect("not erased")
    }

    pub fn last_seq(&self, room: RoomId) -> Seq {
        let answer = self.call(StoreCall::Heads {
            rooms: vec![room],
            users: Vec::new(),
        });
        let StoreAnswer::Heads { rooms, .. } = answer else {
            panic!("not the answer to heads");
        };
        rooms.first().map_or(0, |(_, seq)| *seq)
    }

    pub fn version(&self, n: u128) -> u64 {
        let answer = self.call(StoreCall::Heads {
            rooms: Vec::new(),
            users: vec![user(n)],
        });
        let StoreAnswer::Heads { users, .. } = answer else {
            panic!("not the answer to heads");
        };
        users[0].1
    }

    pub fn events(&self, read: EventsRead) -> EventsPage {
        let StoreAnswer::Events(page) = self.call(StoreCall::Events(read)) else {
            panic!("not the answer to events");
        };
        page
    }

    pub fn all_events(&self, room: RoomId) -> EventsPage {
        self.events(EventsRead {
            room,
            after: 0,
            to: Seq::MAX,
            events_max: usize::MAX,
            bytes_max: usize::MAX,
            newest: false,
        })
    }

    /// The whole history as this user is shown it.
    pub fn history(&self, room: RoomId, n: u128, page: HistoryPage) -> Vec<Message> {
        let read = HistoryRead {
            room,
            user: user(n),
            page,
            limit: usize::MAX,
            bytes_max: usize::MAX,
        };
        let StoreAnswer::History(history) = self.call(StoreCall::History(read)) else {
            panic!("not the answer to a history");
        };
        history.expect("a page").messages
    }

    /// A message as this user is shown it.
    pub fn message(&self, room: RoomId, n: u128, seq: Seq) -> Message {
        let messages = self.history(room, n, HistoryPage::Newest);
        let message = messages.into_iter().find(|message| message.seq == seq);
        message.expect("a message")
    }

    /// One outcome per receipt.
    pub fn receipts(&self, receipts: Vec<Receipt>) -> Vec<ReceiptOutcome> {
        let count = receipts.len();
        let StoreAnswer::WriteReceipts(outcomes) = self.call(StoreCall::WriteReceipts(receipts))
        else {
            panic!("not the answer to receipts");
        };
        assert_eq!(outcomes.len(), count, "one outcome per receipt");
        outcomes
    }

    pub fn open_room(&self, room: RoomId) -> Option<OpenedRoom> {
        let StoreAnswer::OpenRooms(mut rooms) = self.call(StoreCall::OpenRooms(vec![room])) else {
            panic!("not the answer to open rooms");
        };
        assert_eq!(rooms.len(), 1);
        rooms.remove(0)
    }

    pub fn role(&self, room: RoomId, n: u128) -> Option<Role> {
        let members = self.open_room(room).expect("a room").members;
        members
            .iter()
            .find(|(member, _)| *member == user(n))
            .map(|(_, role)| *role)
    }

    pub fn get_room(&self, room: RoomId, n: u128) -> Result<RoomForUser, Refusal> {
        let call = StoreCall::GetRooms(vec![(room, user(n))]);
        let StoreAnswer::GetRooms(mut rooms) = self.call(call) else {
            panic!("not the answer to get rooms");
        };
        rooms.remove(0)
    }
}

/// A store on PostgreSQL with a clock of its own, which gives up nothing because the machine is slow.
pub fn patient(url: &str, clock_ms: Arc<AtomicU64>) -> PostgresOptions {
    PostgresOptions {
        clock: Some(Arc::new(move || UnixMs(clock_ms.load(Ordering::SeqCst)))),
        statement_max: Duration::from_secs(30),
        call_max: Duration::from_secs(50),
        ..PostgresOptions::new(url)
    }
}

/// Long enough for a full disk and a slow machine; nothing waits for it when all is well.
const ANSWER_MAX: Duration = Duration::from_secs(60);

/// Between two looks at what nothing announces.
const LOOK_EVERY: Duration = Duration::from_millis(20);

/// Looks until there is nothing left.
///
/// # Panics
/// When something is left after [`ANSWER_MAX`].
pub fn wait_gone<T: std::fmt::Debug>(mut look: impl FnMut() -> Vec<T>) {
    let deadline = Instant::now() + ANSWER_MAX;
    loop {
        let left = look();
        if left.is_empty() {
            return;
        }
        assert!(Instant::now() < deadline, "{left:?} is still there");
        std::thread::park_timeout(LOOK_EVERY);
    }
}

struct Channel(mpsc::Sender<StoreReply>);

impl ReplySink for Channel {
    fn reply(&self, reply: StoreReply) {
        // Nobody waits any more: the test has failed already.
        let _ = self.0.send(reply);
    }
}

/// Gives a call to the store and waits for its only answer.
pub fn ask(store: &Arc<dyn Store>, call: StoreCall) -> Result<StoreAnswer, StoreError> {
    let (sink, replies) = sink();
    store.submit(7, call, &sink);
    drop(sink);
    let reply = replies.recv_timeout(ANSWER_MAX).expect("an answer in time");
    assert_eq!(reply.ticket, 7);
    assert_eq!(reply.epoch, store.epoch());
    assert!(replies.recv_timeout(ANSWER_MAX).is_err(), "answered twice");
    reply.result
}

/// Where a test gets answers.
pub fn sink() -> (Arc<dyn ReplySink>, mpsc::Receiver<StoreReply>) {
    let (sender, receiver) = mpsc::channel();
    (Arc::new(Channel(sender)), receiver)
}

pub fn user(n: u128) -> UserId {
    // Spread over the key space, in an order unlike that of the numbers.
    UserId(Uuid::from_u128(
        n.wrapping_mul(0x9e37_79b9_7f4a_7c15_f39c_c060_5ced_c835),
    ))
}

pub fn users(numbers: impl IntoIterator<Item = u128>) -> Vec<UserId> {
    let mut users: Vec<UserId> = numbers.into_iter().map(user).collect();
    users.sort_unstable();
    users.dedup();
    users
}

pub fn sign_in(n: u128, name: Option<&str>) -> SignIn {
    SignIn {
        user: user(n),
        name: name.map(str::to_owned),
        picture: None,
        resume: Vec::new(),
        describe_max: 500,
    }
}

/// The group that `creator` calls `name`.
pub fn group_id(creator: u128, name: u128) -> RoomId {
    RoomId::group(user(creator), Uuid::from_u128(name))
}

pub fn create_group(creator: u128, name: u128, others: impl IntoIterator<Item = u128>) -> Op {
    Op {
        actor: user(creator),
        room: group_id(creator, name),
        kind: OpKind::CreateRoom {
            kind: RoomKind::Group,
            title: Some(format!("group {name}")),
            members: users(others),
        },
    }
}

pub fn create_direct(creator: u128, other: u128) -> Op {
    Op {
        actor: user(creator),
        room: RoomId::direct(user(creator), user(other)),
        kind: OpKind::CreateRoom {
            kind: RoomKind::Direct,
            title: None,
            members: vec![user(other)],
        },
    }
}

pub fn send(room: RoomId, sender: u128, id: u128, text: &str) -> Op {
    Op {
        actor: user(sender),
        room,
        kind: OpKind::Send {
            client_msg_id: ClientMsgId(Uuid::from_u128(id)),
            text: text.to_owned(),
            reply_to_seq: None,
            mentions: Vec::new(),
            files: None,
        },
    }
}

pub fn reply_to(room: RoomId, sender: u128, id: u128, seq: Seq) -> Op {
    Op {
        actor: user(sender),
        room,
        kind: OpKind::Send {
            client_msg_id: ClientMsgId(Uuid::from_u128(id)),
            text: "a reply".to_owned(),
            reply_to_seq: Some(seq),
            mentions: Vec::new(),
            files: None,
        },
    }
}

/// A message that names these; 0 is everybody.
pub fn mentioning(
    room: RoomId,
    sender: u128,
    id: u128,
    text: &str,
    whom: impl IntoIterator<Item = u128>,
) -> Op {
    let mention = |n| match n {
        0 => Mention::All(All::All),
        n => Mention::User(user(n)),
    };
    let mut named: Vec<Mention> = whom.into_iter().map(mention).collect();
    named.sort_unstable();
    named.dedup();
    let mut op = send(room, sender, id, text);
    if let OpKind::Send { mentions, .. } = &mut op.kind {
        *mentions = named;
    }
    op
}

/// A change of one message.
pub fn change(room: RoomId, actor: u128, seq: Seq, change: MessageChange) -> Op {
    Op {
        actor: user(actor),
        room,
        kind: OpKind::ChangeMessage { seq, change },
    }
}

pub fn edit(room: RoomId, actor: u128, seq: Seq, text: &str) -> Op {
    let edit = MessageChange::Edit {
        text: text.to_owned(),
        expected_revision: None,
    };
    change(room, actor, seq, edit)
}

pub fn delete(room: RoomId, actor: u128, seq: Seq) -> Op {
    let expected_revision = None;
    change(
        room,
        actor,
        seq,
        MessageChange::Delete { expected_revision },
    )
}

pub fn react(room: RoomId, actor: u128, seq: Seq, emoji: &str) -> Op {
    let emoji = emoji.to_owned();
    change(room, actor, seq, MessageChange::AddReaction { emoji })
}

pub fn unreact(room: RoomId, actor: u128, seq: Seq, emoji: &str) -> Op {
    let emoji = emoji.to_owned();
    change(room, actor, seq, MessageChange::RemoveReaction { emoji })
}

pub fn pin(room: RoomId, actor: u128, seq: Seq) -> Op {
    change(room, actor, seq, MessageChange::Pin)
}

/// Whether a message changed, its `changed_seq` and its revision.
pub fn message_changed(done: &OpDone) -> (bool, Seq, u32) {
    match &done.reply {
        OpReply::Message(message) => (message.changed, message.seq, message.revision),
        _ => panic!("not the reply to a change of a message"),
    }
}

pub fn add(room: RoomId, actor: u128, whom: impl IntoIterator<Item = u128>) -> Op {
    Op {
        actor: user(actor),
        room,
        kind: OpKind::AddMembers { users: users(whom) },
    }
}

pub fn remove(room: RoomId, actor: u128, whom: impl IntoIterator<Item = u128>) -> Op {
    Op {
        actor: user(actor),
        room,
        kind: OpKind::RemoveMembers { users: users(whom) },
    }
}

pub fn set_role(room: RoomId, actor: u128, whom: impl IntoIterator<Item = u128>, role: Role) -> Op {
    Op {
        actor: user(actor),
        room,
        kind: OpKind::SetRole {
            users: users(whom),
            role,
        },
    }
}

pub fn set_title(room: RoomId, actor: u128, title: Option<&str>) -> Op {
    Op {
        actor: user(actor),
        room,
        kind: OpKind::UpdateRoom {
            title: Some(title.map(str::to_owned)),
            picture: None,
        },
    }
}

pub fn set_picture(room: RoomId, actor: u128, picture: Option<&str>) -> Op {
    Op {
        actor: user(actor),
        room,
        kind: OpKind::UpdateRoom {
            title: None,
            picture: Some(picture.map(str::to_owned)),
        },
    }
}

pub fn leave(room: RoomId, actor: u128) -> Op {
    Op {
        actor: user(actor),
        room,
        kind: OpKind::Leave,
    }
}

/// A block, by the room of the two.
pub fn block(actor: u128, whom: u128) -> Op {
    set_block(actor, whom, true)
}

pub fn unblock(actor: u128, whom: u128) -> Op {
    set_block(actor, whom, false)
}

fn set_block(actor: u128, whom: u128, blocked: bool) -> Op {
    Op {
        actor: user(actor),
        room: RoomId::direct(user(actor), user(whom)),
        kind: OpKind::SetBlock {
            user: user(whom),
            blocked,
        },
    }
}

/// How a block is, and whether it was otherwise.
pub fn block_of(done: &OpDone) -> (BlockChange, bool) {
    match &done.reply {
        OpReply::Block { block, changed } => (*block, *changed),
        _ => panic!("not the reply to a block"),
    }
}

/// `seq` and `duplicate` of a send that stands.
pub fn sent(done: &OpDone) -> (Seq, bool) {
    match &done.reply {
        OpReply::Sent(sent) => (sent.seq, sent.duplicate),
        _ => panic!("not the reply to a send"),
    }
}

/// The time that the author of a send was told.
pub fn ts_of_send(done: &OpDone) -> UnixMs {
    match &done.reply {
        OpReply::Sent(sent) => sent.ts,
        _ => panic!("not the reply to a send"),
    }
}

/// `seq` of a change; `None` if nothing changed.
pub fn changed(done: &OpDone) -> Option<Seq> {
    match &done.reply {
        OpReply::Changed(seq) => *seq,
        _ => panic!("not the reply to a change"),
    }
}

/// The room of a creation, and whether it is new.
pub fn created(done: &OpDone) -> (&caffis_chat::protocol::view::Room, bool) {
    match &done.reply {
        OpReply::Room { room, created } => (room, *created),
        _ => panic!("not the reply to a creation"),
    }
}

/// Random numbers of a seed (SplitMix64, Steele, Lea, Flood 2014).
pub struct Random(pub u64);

impl Random {
    pub fn below(&mut self, bound: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (mixed ^ (mixed >> 31)) % bound
    }

    pub fn chance(&mut self, percent: u64) -> bool {
        self.below(100) < percent
    }

    pub fn pick<T: Copy>(&mut self, of: &[T]) -> T {
        of[self.below(of.len() as u64) as usize]
    }
}

/// Says how to repeat a random test that failed.
pub struct Repeat(pub u64);

impl Drop for Repeat {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!(
                "repeat it with: CONTRACT_SEED={} cargo test --test contract random",
                self.0
            );
        }
    }
}
