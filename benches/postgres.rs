//! What the store on PostgreSQL costs: commits of batches of sends, through the whole path of a node (queue,
//! thread, connection, function), on a private server with `fsync` on.
//!
//! CPU is that of all processes of the server and that of this one, per send. Run small by
//! `cargo test --benches`.

// A benchmark has a clock; only the pure part must not.
#![allow(clippy::disallowed_methods)]

#[path = "../tests/support/postgres.rs"]
mod postgres;

use caffis_chat::chat::port::{
    Op, OpKind, ReplySink, SignIn, Store, StoreAnswer, StoreCall, StoreReply,
};
use caffis_chat::protocol::view::RoomKind;
use caffis_chat::protocol::{ClientMsgId, RoomId, UserId};
use caffis_chat::store::postgres::{PostgresOptions, PostgresStore};
use std::path::Path;
use std::sync::{Arc, mpsc};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};
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

fn member(room: u128, place: u128) -> UserId {
    user(room + place * USERS / MEMBERS)
}

fn room(n: u128) -> RoomId {
    RoomId::group(member(n, 0), Uuid::from_u128(n))
}

struct Channel(mpsc::Sender<StoreReply>);

impl ReplySink for Channel {
    fn reply(&self, reply: StoreReply) {
        // Nobody waits any more when the benchmark has failed.
        let _unheard = self.0.send(reply);
    }
}

struct Caller {
    store: Arc<dyn Store>,
    sink: Arc<dyn ReplySink>,
    replies: mpsc::Receiver<StoreReply>,
    sends: u128,
    name: u128,
}

impl Caller {
    fn new(store: &Arc<dyn Store>, name: u128) -> Caller {
        let (sender, replies) = mpsc::channel();
        Caller {
            store: Arc::clone(store),
            sink: Arc::new(Channel(sender)),
            replies,
            sends: 0,
            name,
        }
    }

    fn call(&self, call: StoreCall) -> StoreAnswer {
        self.store.submit(0, call, &self.sink);
        let reply = self.replies.recv().expect("an answer");
        reply.result.expect("the store answers")
    }

    fn send(&mut self, count: u128, hot: bool) {
        let ms = SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .expect("after 1970")
            .as_millis();
        let ops: Vec<Op> = (0..count)
            .map(|_| {
                self.sends += 1;
                // Callers have rooms of their own, as shards have.
                let n = if hot {
                    0
                } else {
                    self.sends * 1_619 % (ROOMS / 8)
                };
                let n = n * 8 + self.name;
                // As UUIDv7: the time first, then what is random.
                let random = (self.sends << 3 | self.name).wrapping_mul(0x9e37_79b9_7f4a_7c15);
                let id = ms << 80 | random & 0xffff_ffff_ffff_ffff;
                Op {
                    actor: member(n, self.sends % MEMBERS),
                    room: room(n),
                    kind: OpKind::Send {
                        client_msg_id: ClientMsgId(Uuid::from_u128(id)),
                        text: TEXT.to_owned(),
                        reply_to_seq: None,
                        mentions: Vec::new(),
                        files: None,
                    },
                }
            })
            .collect();
        let StoreAnswer::Commit(outcomes) = self.call(StoreCall::Commit(ops)) else {
            panic!("not the answer to a commit");
        };
        assert!(outcomes.iter().all(Result::is_ok));
    }
}

/// CPU time of these processes so far, in ticks of 10 ms.
fn cpu_ticks(pids: &[u32]) -> u64 {
    let of = |pid: &u32| {
        let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
        let after = stat.rsplit_once(')').map_or("", |(_, after)| after);
        // Fields 14 and 15 are utime and stime; this begins with the third. Some are negative.
        let ticks = after.split_whitespace().skip(11).take(2);
        ticks
            .filter_map(|field| field.parse::<u64>().ok())
            .sum::<u64>()
    };
    pids.iter().map(of).sum()
}

/// The server's processes.
fn server_pids(folder: &Path) -> Vec<u32> {
    let text = std::fs::read_to_string(folder.join("data/postmaster.pid")).expect("a server");
    let postmaster: u32 = text
        .lines()
        .next()
        .and_then(|pid| pid.parse().ok())
        .expect("its pid");
    let children = format!("/proc/{postmaster}/task/{postmaster}/children");
    let children = std::fs::read_to_string(children).unwrap_or_default();
    let children = children
        .split_whitespace()
        .filter_map(|pid| pid.parse().ok());
    std::iter::once(postmaster).chain(children).collect()
}

fn main() {
    let is_full = std::env::args().any(|arg| arg == "--bench");
    let time = Duration::from_millis(if is_full { 4_000 } else { 50 });
    let server = postgres::PostgresServer::start("");
    let options = PostgresOptions {
        statement_max: Duration::from_secs(60),
        call_max: Duration::from_secs(60),
        ..PostgresOptions::new(server.url("postgres"))
    };
    let store: Arc<dyn Store> = Arc::new(PostgresStore::open(options).expect("the store opens"));
    let caller = Caller::new(&store, 0);
    let users: Vec<SignIn> = (0..USERS)
        .map(|n| SignIn {
            user: user(n),
            name: Some(format!("user {n}")),
            picture: None,
            resume: Vec::new(),
            describe_max: 500,
        })
        .collect();
    for users in users.chunks(256) {
        caller.call(StoreCall::SignIn(users.to_vec()));
    }
    let rooms: Vec<Op> = (0..if is_full { ROOMS } else { 64 })
        .map(|n| {
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
        })
        .collect();
    for rooms in rooms.chunks(256) {
        caller.call(StoreCall::Commit(rooms.to_vec()));
    }
    let (ours, theirs) = ([std::process::id()], server_pids(server.folder()));
    println!(
        "| rooms | callers | batch | sends/s | p50 ms | p99 ms | CPU µs a send, server | here |"
    );
    println!("|---|---|---|---|---|---|---|---|");
    for hot in [false, true] {
        // The small form has too few rooms for anything but a hot one.
        if !hot && !is_full {
            continue;
        }
        for (callers, batch) in [(1, 1u128), (1, 16), (1, 128), (1, 1_024), (2, 1), (2, 128)] {
            let before = (cpu_ticks(&theirs), cpu_ticks(&ours), Instant::now());
            let tasks: Vec<_> = (0..callers)
                .map(|name| {
                    let mut caller = Caller::new(&store, name);
                    // Ids of this round only.
                    caller.sends = before.2.elapsed().as_nanos() << 20 | batch << 8;
                    std::thread::spawn(move || {
                        let begun = Instant::now();
                        let mut took = Vec::new();
                        while begun.elapsed() < time {
                            let one = Instant::now();
                            caller.send(batch, hot);
                            took.push(one.elapsed());
                        }
                        took
                    })
                })
                .collect();
            let mut took: Vec<Duration> = Vec::new();
            for task in tasks {
                took.extend(task.join().expect("a caller"));
            }
            let seconds = before.2.elapsed().as_secs_f64();
            let sends = took.len() as f64 * batch as f64;
            took.sort_unstable();
            let at = |part: f64| took[(took.len() as f64 * part) as usize].as_secs_f64() * 1e3;
            let us = |ticks: u64| ticks as f64 * 10_000.0 / sends;
            println!(
                "| {} | {callers} | {batch} | {:.0} | {:.2} | {:.2} | {:.0} | {:.1} |",
                if hot { "one a caller" } else { "many" },
                sends / seconds,
                at(0.5),
                at(0.99),
                us(cpu_ticks(&theirs) - before.0),
                us(cpu_ticks(&ours) - before.1),
            );
        }
    }
    println!("\n| one room's last_seq, asked | p50 ms | CPU here, µs | CPU of the server, µs |");
    println!("|---|---|---|---|");
    let pids = || server_pids(server.folder());
    let asked = [room(0)];
    look(
        "through the store: queue, thread, connection",
        time,
        pids,
        || {
            caller.call(StoreCall::Heads {
                rooms: asked.to_vec(),
                users: Vec::new(),
            });
        },
    );
    // What a connection on the asker's own thread would cost: the same statement without any hop.
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .expect("a runtime");
    let (client, connection) = runtime
        .block_on(tokio_postgres::connect(
            &server.url("postgres"),
            tokio_postgres::NoTls,
        ))
        .expect("a connection");
    let connection = runtime.spawn(connection);
    let statement = "SELECT 0, room_id, last_seq FROM chat_rooms WHERE room_id = ANY ($1)";
    let statement = runtime.block_on(client.prepare(statement)).expect("SQL");
    let ids = vec![asked[0].0];
    look("on the asker's own thread", time, pids, || {
        let rows = runtime.block_on(client.query(&statement, &[&ids]));
        assert_eq!(rows.expect("an answer").len(), 1);
    });
    drop(client);
    runtime.block_on(connection).expect("ended").expect("well");
}

/// Does this again and again, one after the other, and prints a row.
fn look(what: &str, time: Duration, pids: impl Fn() -> Vec<u32>, mut once: impl FnMut()) {
    let (theirs, ours) = (pids(), [std::process::id()]);
    let before = (cpu_ticks(&theirs), cpu_ticks(&ours), Instant::now());
    let mut took = Vec::new();
    while before.2.elapsed() < time {
        let one = Instant::now();
        once();
        took.push(one.elapsed());
    }
    let cpu = (cpu_ticks(&theirs) - before.0, cpu_ticks(&ours) - before.1);
    took.sort_unstable();
    let us = |ticks: u64| ticks as f64 * 10_000.0 / took.len() as f64;
    println!(
        "| {what} | {:.3} | {:.1} | {:.1} |",
        took[took.len() / 2].as_secs_f64() * 1e3,
        us(cpu.1),
        us(cpu.0),
    );
}
