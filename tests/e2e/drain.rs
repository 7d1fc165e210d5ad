//! A server that is told to stop: everybody is asked to leave, and nothing is lost.

use crate::support::client::message;
use crate::support::server::{self, NO_LIMIT};
use crate::support::socket::End;
use crate::support::wait::DEADLINE;
use crate::support::{Client, Server, User};
use serde_json::Value;
use std::collections::BTreeMap;
use std::net::TcpStream;
use std::thread;
use std::time::Instant;
use uuid::Uuid;

#[test]
fn everybody_is_told_before_the_server_stops() {
    let folder = tempfile::tempdir().expect("a folder");
    let env = [("CAFFIS_DRAIN_MS", "4000")];
    let mut server = server::start(&env).within(folder.path());
    let users: Vec<User> = (0..6).map(|_| User::new("Guest")).collect();
    let clients: Vec<Client> = (users.iter().enumerate())
        .map(|(number, user)| server.connect_on(number % 2, user))
        .collect();
    server.terminate();
    let began = Instant::now();
    let threads: Vec<_> = (clients.into_iter())
        .map(|client| thread::spawn(move || last_word(client)))
        .collect();
    let rooms: Vec<Option<Uuid>> = (threads.into_iter())
        .map(|thread| thread.join().expect("a guest"))
        .collect();
    assert_eq!(server.ended().code(), Some(0));
    assert!(began.elapsed() < DEADLINE);
    assert!(
        TcpStream::connect(server.address).is_err(),
        "nobody listens any more"
    );

    let server = Server::unlimited_in(folder.path());
    for (user, room) in users.iter().zip(rooms) {
        let Some(room) = room else { continue };
        let history = server.connect(user).history_after(room, 0);
        assert_eq!(history.len(), 2);
        assert_eq!(history[1]["text"], "One last word.");
    }
}

/// Says something when the server is about to stop, and waits for the end. The room it was said
/// in, unless there was too little time.
fn last_word(mut client: Client) -> Option<Uuid> {
    let draining = client.event_of("server.draining");
    let after_ms = draining["data"]["reconnect_after_ms"]
        .as_u64()
        .expect("a time");
    assert!(after_ms <= 4_000, "{draining}");
    // Until then it is served.
    let room = (after_ms > 2_000).then(|| client.group(&[]));
    if let Some(room) = room {
        assert_eq!(client.send(room, "One last word."), 2);
    }
    client.closed_with(4102);
    let events = client.take_events();
    let last = events.last().expect("it was told");
    assert_eq!(last["type"], "server.closing", "the last event: {events:?}");
    assert_eq!(last["data"]["code"], 4102);
    assert!(last["data"]["retry_after_ms"].as_u64() > Some(0), "{last}");
    room
}

#[test]
fn what_is_acknowledged_while_the_server_stops_is_not_lost() {
    let folder = tempfile::tempdir().expect("a folder");
    let mut server = server::start(NO_LIMIT).within(folder.path());
    let users: Vec<User> = (0..4).map(|_| User::new("Writer")).collect();
    let mut clients: Vec<Client> = (users.iter().enumerate())
        .map(|(number, user)| server.connect_on(number % 2, user))
        .collect();
    let others: Vec<&User> = users[1..].iter().collect();
    let room = clients[0].group(&others);
    for client in &mut clients {
        client.wait_for_seq(room, 1);
    }
    let writers: Vec<_> = (clients.into_iter())
        .map(|client| thread::spawn(move || write(client, room)))
        .collect();
    let mut reader = server.connect(&users[0]);
    for _ in 0..100 {
        reader.event();
    }
    server.terminate();
    let mut acked: BTreeMap<u64, Uuid> = BTreeMap::new();
    for writer in writers {
        for (id, seq) in writer.join().expect("a writer") {
            assert_eq!(acked.insert(seq, id), None, "one seq, one message");
        }
    }
    assert_eq!(server.ended().code(), Some(0));
    assert!(acked.len() > 20, "{}", acked.len());

    let server = Server::unlimited_in(folder.path());
    let history = server.connect(&users[0]).history_after(room, 0);
    let stored: BTreeMap<u64, &Value> = (history.iter())
        .map(|message| {
            (
                message["seq"].as_u64().expect("a seq"),
                &message["client_msg_id"],
            )
        })
        .collect();
    for (seq, id) in acked {
        assert_eq!(*stored[&seq], id.to_string());
    }
}

/// Writes until the connection is closed; what was acknowledged.
fn write(mut client: Client, room: Uuid) -> BTreeMap<Uuid, u64> {
    let mut acked = BTreeMap::new();
    loop {
        let id = Uuid::now_v7();
        let request = client.tell(
            "message.send",
            &message(room, id, "Quick, before it stops."),
        );
        match client.reply_or_end(request) {
            Ok(reply) => {
                assert_eq!(reply["type"], "ack", "{reply}");
                acked.insert(id, reply["data"]["seq"].as_u64().expect("a seq"));
            }
            Err(End::Close(code, _)) => {
                assert_eq!(code, Some(4102));
                return acked;
            }
            Err(end) => panic!("without a word: {end:?}"),
        }
    }
}
