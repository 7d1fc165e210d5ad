//! How many instructions a plain message costs: from the request's text to the frames in the outboxes, without the
//! kernel, the sockets and the disk. A count does not wander with the machine, so that two builds compare exactly.
//!
//! `cargo bench --bench instructions` runs itself under valgrind's callgrind, once with some messages and once with
//! more; the difference is the messages' alone. `core` is the shard ([`ShardCore::step`], reading the outboxes
//! included), `store` the embedded database in memory, as it is called. `cargo test --bench instructions` does a
//! little of it without valgrind, and compares how many frames were written; `./check` does not, it only sees that
//! this compiles.

// A benchmark starts processes; only the pure part must not.
#![allow(clippy::disallowed_methods, clippy::disallowed_types)]

use caffis_chat::chat::port::{Identity, StoreAnswer, StoreCall, StoreError, StoreReply, Ticket};
use caffis_chat::chat::{ConnId, CoreConfig, Effect, Input, Now, ShardCore};
use caffis_chat::protocol::{UnixMs, UserId};
use caffis_chat::store::sqlite::{Db, DbOptions};
use std::collections::VecDeque;
use std::process::Command;
use uuid::Uuid;

const TEXT: &str = "Coffee at four? The place by the canal has the good cake again, and shade.";
const START: UnixMs = UnixMs(1_700_000_000_000);
/// Messages that are committed together, one of each room.
const ROOMS: usize = 8;

/// A shard, its store, and one connection for each member of each room.
struct Node {
    core: ShardCore,
    db: Db,
    calls: VecDeque<(Ticket, StoreCall)>,
    now: Now,
    /// Frames written to connections, and their bytes.
    frames: u64,
    bytes: u64,
    last: String,
}

/// What is counted as the core.
#[inline(never)]
fn counted_core(
    core: &mut ShardCore,
    now: Now,
    input: Input<'_>,
    buffer: &mut Vec<u8>,
) -> Vec<Effect> {
    let mut effects = Vec::new();
    core.step(now, input, &mut effects);
    let mut at = 0;
    while at < effects.len() {
        if let Effect::Flush(conn) = effects[at] {
            let before = buffer.len();
            if let Some(outbox) = core.outbox(conn) {
                outbox.fill(buffer, usize::MAX);
            }
            let written = buffer.len() - before;
            if written > 0 {
                core.written(now, conn, written, &mut effects);
            }
        }
        at += 1;
    }
    effects
}

/// What is counted as the store.
#[inline(never)]
fn counted_store(db: &mut Db, now: UnixMs, call: &StoreCall) -> Result<StoreAnswer, StoreError> {
    db.call(now, call)
}

impl Node {
    fn new() -> Node {
        let options = DbOptions {
            hash_key: Some([7; 32]),
            ..DbOptions::default()
        };
        let db = Db::in_memory(&options).expect("an empty database in memory");
        let mut config = CoreConfig::new("counted", 1, db.epoch());
        config.batch_spacing_us = 0;
        config.sends_per_10s = u32::MAX;
        config.commands_per_10s = u32::MAX;
        Node {
            core: ShardCore::new(config, 0, 1),
            db,
            calls: VecDeque::new(),
            now: Now {
                mono_us: 1,
                unix: START,
            },
            frames: 0,
            bytes: 0,
            last: String::new(),
        }
    }

    /// One input, without what comes of it in the store.
    fn input(&mut self, input: Input<'_>) {
        let mut buffer = Vec::with_capacity(1 << 16);
        let effects = counted_core(&mut self.core, self.now, input, &mut buffer);
        self.bytes += buffer.len() as u64;
        let mut rest = &buffer[..];
        while let [_, short, after @ ..] = rest {
            let (head, length) = match short {
                126 => (2, usize::from(u16::from_be_bytes([after[0], after[1]]))),
                127 => panic!("a frame of more than 64 KiB"),
                short => (0, usize::from(*short)),
            };
            self.last = String::from_utf8_lossy(&after[head..head + length]).into_owned();
            rest = &after[head + length..];
            self.frames += 1;
        }
        for effect in effects {
            match effect {
                Effect::Store(ticket, call) => self.calls.push_back((ticket, call)),
                Effect::Close(conn, code) => panic!("closed {conn:?} with {code:?}"),
                Effect::Verify(conn, token) => {
                    let user = token.parse().expect("a user's id");
                    let identity = Identity {
                        user,
                        expires_at: UnixMs(START.0 + 3_600_000),
                        name: None,
                        picture: None,
                        issued_at: None,
                        sid: None,
                    };
                    self.input(Input::Verified(conn, Ok(identity)));
                }
                _ => (),
            }
        }
    }

    /// The store answers, until it is asked nothing more.
    fn settle(&mut self) {
        while let Some((ticket, call)) = self.calls.pop_front() {
            let result = counted_store(&mut self.db, self.now.unix, &call);
            let epoch = self.db.epoch();
            self.input(Input::Store(StoreReply {
                ticket,
                epoch,
                result,
            }));
        }
    }
}

fn user(n: usize) -> UserId {
    UserId(Uuid::from_u128(
        (n as u128 + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15_f39c_c060_5ced_c835),
    ))
}

/// Rooms of so many, everybody connected, and so many rounds of one message in each room. Frames and bytes written
/// because of the messages.
fn work(members: usize, rounds: usize) -> (u64, u64) {
    let mut node = Node::new();
    let conn = |n: usize| ConnId {
        index: n as u32,
        generation: 0,
    };
    for n in 0..ROOMS * members {
        node.input(Input::Opened(conn(n)));
        let auth = format!(
            r#"{{"id":1,"type":"auth","data":{{"token":"{}"}}}}"#,
            user(n)
        );
        node.input(Input::Text(conn(n), &auth));
        node.settle();
    }
    let rooms: Vec<String> = (0..ROOMS)
        .map(|room| {
            let others: Vec<String> = (1..members)
                .map(|place| format!("\"{}\"", user(room * members + place)))
                .collect();
            let client_room_id = Uuid::from_u128(room as u128);
            let create = format!(
                r#"{{"id":2,"type":"room.create","data":{{"kind":"group","member_ids":[{}],"client_room_id":"{client_room_id}"}}}}"#,
                others.join(",")
            );
            node.input(Input::Text(conn(room * members), &create));
            node.settle();
            caffis_chat::protocol::RoomId::group(user(room * members), client_room_id).to_string()
        })
        .collect();
    let (frames, bytes) = (node.frames, node.bytes);
    for round in 0..rounds {
        // Slow enough that nothing is refused, and no tick comes.
        node.now.mono_us += 1_000;
        node.now.unix.0 += 1;
        for (room, id) in rooms.iter().enumerate() {
            let client_msg_id = Uuid::from_u128((1 << 100) + (round * ROOMS + room) as u128);
            let send = format!(
                r#"{{"id":{},"type":"message.send","data":{{"room_id":"{id}","client_msg_id":"{client_msg_id}","kind":"text","text":"{TEXT}"}}}}"#,
                round + 3
            );
            node.input(Input::Text(conn(room * members + round % members), &send));
        }
        node.settle();
    }
    let written = (node.frames - frames, node.bytes - bytes);
    let sends = (ROOMS * rounds) as u64;
    assert!(
        node.last.contains("\"message_seq\"") || node.last.contains(TEXT) || rounds == 0,
        "{}",
        node.last
    );
    // To each member the message, and to who sent it the ack.
    assert_eq!(
        written.0,
        sends * (members as u64 + 1),
        "{sends} messages in rooms of {members} were written as {} frames",
        written.0
    );
    written
}

/// Instructions of all that is below a function, by callgrind.
fn count(function: &str, members: usize, rounds: usize) -> Result<u64, String> {
    let this = std::env::current_exe().map_err(|error| error.to_string())?;
    let output = Command::new("valgrind")
        .args(["--tool=callgrind", "--callgrind-out-file=/dev/null"])
        .arg(format!("--toggle-collect=*{function}*"))
        .arg(this)
        .args(["--work", &members.to_string(), &rounds.to_string()])
        .output()
        .map_err(|error| format!("valgrind: {error}"))?;
    let said = String::from_utf8_lossy(&output.stderr);
    if !output.status.success() {
        return Err(said.into_owned());
    }
    said.lines()
        .find_map(|line| line.split_once("Collected : "))
        .and_then(|(_, count)| count.trim().parse().ok())
        .ok_or_else(|| format!("no count in: {said}"))
}

fn main() -> Result<(), String> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    if let [flag, members, rounds] = &args[..]
        && flag == "--work"
    {
        let number = |text: &String| text.parse().map_err(|error| format!("{text}: {error}"));
        work(number(members)?, number(rounds)?);
        return Ok(());
    }
    if !args.iter().any(|arg| arg == "--bench") {
        work(4, 10);
        return Ok(());
    }
    let (few, many) = (100, 600);
    println!("instructions      per message  per delivery");
    for members in [2, 4, 50] {
        for (name, function) in [("core", "counted_core"), ("store", "counted_store")] {
            let more = count(function, members, many)? - count(function, members, few)?;
            let sends = ((many - few) * ROOMS) as u64;
            println!(
                "rooms of {members:<2} {name:<5} {:>11} {:>13}",
                more / sends,
                more / (sends * members as u64)
            );
        }
    }
    Ok(())
}
