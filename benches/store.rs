//! What the embedded store costs: commits of batches of sends, sign-in, a page of events, on a real
//! file with `synchronous=FULL`.
//!
//! `…/cpu` is the CPU time of the thread, which says what a core can do; `…/wall` includes the wait
//! for the disk, which says what one caller sees. Run small by `cargo test --benches`.

// A benchmark has a clock; only the pure part must not.
#![allow(clippy::disallowed_methods)]

use caffis_chat::chat::port::{
    EventsRead, HistoryPage, HistoryRead, Op, OpKind, SignIn, StoreCall,
};
use caffis_chat::protocol::view::RoomKind;
use caffis_chat::protocol::{ClientMsgId, RoomId, UnixMs, UserId};
use caffis_chat::store::sqlite::{Db, DbOptions};
use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use std::hint::black_box;
use std::time::{Duration, Instant};
use uuid::Uuid;

const USERS: u128 = 4_000;
const ROOMS: u128 = 4_000;
const MEMBERS: u128 = 4;
const TEXT: &str = "Coffee at four? The place by the canal has the good cake again, and shade.";

fn user(n: u128) -> UserId {
    UserId(Uuid::from_u128(
        (n % USERS).wrapping_mul(0x9e37_79b9_7f4a_7c15_f39c_c060_5ced_c835),
    ))
}

/// The members of room `n` are four users, far from each other; each user is in four rooms.
fn member(room: u128, place: u128) -> UserId {
    user(room + place * USERS / MEMBERS)
}

fn room(n: u128) -> RoomId {
    RoomId::group(member(n, 0), Uuid::from_u128(n))
}

/// A database with users and rooms, and a generator of sends.
struct Fixture {
    db: Db,
    now_ms: u64,
    sends: u128,
    _folder: tempfile::TempDir,
}

impl Fixture {
    fn new() -> Fixture {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("chat.db");
        let mut fixture = Fixture {
            db: Db::open(&path, &DbOptions::default()).expect("a database"),
            now_ms: 1_700_000_000_000,
            sends: 0,
            _folder: folder,
        };
        let users: Vec<SignIn> = (0..USERS).map(sign_in).collect();
        for users in users.chunks(256) {
            fixture.call(&StoreCall::SignIn(users.to_vec()));
        }
        let rooms: Vec<Op> = (0..ROOMS).map(create).collect();
        for rooms in rooms.chunks(256) {
            fixture.call(&StoreCall::Commit(rooms.to_vec()));
        }
        fixture
    }

    fn call(&mut self, call: &StoreCall) {
        self.now_ms += 1;
        let answer = self.db.call(UnixMs(self.now_ms), call);
        black_box(answer.expect("the store answers"));
    }

    /// Sends to rooms far from each other, or all to one.
    fn batch(&mut self, count: u128, hot: bool) -> Vec<Op> {
        let mut ops = Vec::with_capacity(count as usize);
        for _ in 0..count {
            self.sends += 1;
            let n = if hot { 0 } else { self.sends * 1_619 % ROOMS };
            // As UUIDv7: the time first, then what is random.
            let id = u128::from(self.now_ms) << 80 | self.sends.wrapping_mul(0x9e37_79b9_7f4a_7c15);
            ops.push(Op {
                actor: member(n, self.sends % MEMBERS),
                room: room(n),
                kind: OpKind::Send {
                    client_msg_id: ClientMsgId(Uuid::from_u128(id)),
                    text: TEXT.to_owned(),
                    reply_to_seq: None,
                    mentions: Vec::new(),
                    files: None,
                },
            });
        }
        ops
    }
}

fn sign_in(n: u128) -> SignIn {
    SignIn {
        user: user(n),
        name: Some(format!("user {n}")),
        picture: None,
        resume: Vec::new(),
        describe_max: 500,
    }
}

fn create(n: u128) -> Op {
    let mut members: Vec<UserId> = (1..MEMBERS).map(|place| member(n, place)).collect();
    members.sort_unstable();
    Op {
        actor: member(n, 0),
        room: room(n),
        kind: OpKind::CreateRoom {
            kind: RoomKind::Group,
            title: Some(format!("room {n}")),
            members,
        },
    }
}

/// What is measured.
#[derive(Clone, Copy)]
enum Unit {
    Cpu,
    Wall,
}

impl Unit {
    fn name(self) -> &'static str {
        match self {
            Unit::Cpu => "cpu",
            Unit::Wall => "wall",
        }
    }

    fn of(self, work: impl FnOnce()) -> Duration {
        let (cpu, wall) = (cpu_time(), Instant::now());
        work();
        let took = match self {
            Unit::Cpu => cpu_time().saturating_sub(cpu),
            Unit::Wall => wall.elapsed(),
        };
        // Never zero, which the statistics cannot take.
        took.max(Duration::from_nanos(1))
    }
}

/// CPU time of this thread so far. The kernel brings it up to date at ticks and whenever the thread
/// waits, so only stretches of many ms are told well.
fn cpu_time() -> Duration {
    let stat = std::fs::read_to_string("/proc/thread-self/schedstat").expect("schedstat");
    let ns = stat.split(' ').next().expect("a first field");
    Duration::from_nanos(ns.parse().expect("a number"))
}

fn commits(criterion: &mut Criterion) {
    let mut fixture = Fixture::new();
    for unit in [Unit::Cpu, Unit::Wall] {
        for hot in [false, true] {
            let name = if hot { "one_room" } else { "many_rooms" };
            let mut group = criterion.benchmark_group(format!("commit/{name}/{}", unit.name()));
            for count in [1u128, 16, 128, 1_024] {
                group.throughput(Throughput::Elements(count as u64));
                group.bench_function(BenchmarkId::from_parameter(count), |bencher| {
                    bencher.iter_custom(|rounds| {
                        let calls: Vec<StoreCall> = (0..rounds)
                            .map(|_| StoreCall::Commit(fixture.batch(count, hot)))
                            .collect();
                        unit.of(|| calls.iter().for_each(|call| fixture.call(call)))
                    });
                });
            }
        }
    }
}

fn reads(criterion: &mut Criterion) {
    let mut fixture = Fixture::new();
    for _ in 0..100 {
        let many = StoreCall::Commit(fixture.batch(1_024, false));
        fixture.call(&many);
    }
    let hot = StoreCall::Commit(fixture.batch(1_024, true));
    fixture.call(&hot);
    let mut group = criterion.benchmark_group("read");
    group.bench_function("sign_in_4_rooms", |bencher| {
        let mut n = 0;
        bencher.iter(|| {
            n += 1_619;
            fixture.call(&StoreCall::SignIn(vec![sign_in(n % USERS)]));
        });
    });
    group.bench_function("events_300", |bencher| {
        bencher.iter(|| {
            fixture.call(&StoreCall::Events(EventsRead {
                room: room(0),
                after: 500,
                to: u64::MAX,
                events_max: 300,
                bytes_max: 256 << 10,
                newest: false,
            }));
        });
    });
    group.bench_function("history_100", |bencher| {
        bencher.iter(|| {
            fixture.call(&StoreCall::History(HistoryRead {
                room: room(0),
                user: member(0, 0),
                page: HistoryPage::Newest,
                limit: 100,
                bytes_max: 256 << 10,
            }));
        });
    });
}

fn quick() -> Criterion {
    Criterion::default()
        .sample_size(10)
        .warm_up_time(Duration::from_millis(200))
        .measurement_time(Duration::from_millis(700))
        .without_plots()
}

criterion_group! {
    name = store;
    config = quick();
    targets = commits, reads
}
criterion_main!(store);
