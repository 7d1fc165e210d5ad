//! Clients that ask for more than they may.

use crate::support::client::{code_of, message};
use crate::support::pair::Pair;
use crate::support::server;
use crate::support::socket::{End, Frame, Socket};
use crate::support::{Client, Server, User};
use serde_json::{Value, json};
use uuid::Uuid;

#[test]
fn sends_above_the_limit_are_refused_with_a_time_and_not_stored() {
    let server = Server::new();
    let pair = Pair::start(&server);
    let mut client = server.connect(&User::new("Eve"));
    let room = client.group(&[]);
    let asked: Vec<u64> = (0..100)
        .map(|n| {
            client.tell(
                "message.send",
                &message(room, Uuid::now_v7(), &n.to_string()),
            )
        })
        .collect();
    let (mut acked, mut retry_after_ms) = (0, 0);
    for id in asked {
        let reply = client.reply(id);
        if reply["type"] == "ack" {
            acked += 1;
        } else {
            assert_eq!(code_of(&reply), "rate_limited");
            retry_after_ms = reply["error"]["retry_after_ms"].as_u64().expect("a time");
            assert!((1..=10_000).contains(&retry_after_ms), "{reply}");
        }
    }
    // 50 at once, and one more every 200 ms: few in the time that this took.
    assert!((50..75).contains(&acked), "{acked}");
    assert!(
        retry_after_ms <= 200,
        "the next one may come after {retry_after_ms} ms"
    );
    assert_eq!(client.history_after(room, 1).len(), acked);
    // Whoever waits is heard again.
    let data = message(room, Uuid::now_v7(), "Patience.");
    let sent = crate::support::wait::wait_for("a place", || {
        let reply = client.ask("message.send", &data);
        (reply["type"] == "ack").then_some(reply)
    });
    assert_eq!(sent["data"]["seq"], acked + 2);
    pair.stop();
}

#[test]
fn commands_above_the_limit_are_refused_too() {
    let server = server::start(&[("CAFFIS_COMMANDS_PER_10S", "20")]).anywhere();
    let mut client = server.connect(&User::new("Eve"));
    assert_eq!(client.ready["limits"]["commands_per_10s"], 20);
    let asked: Vec<u64> = (0..60)
        .map(|_| client.tell("rooms.list", &json!({})))
        .collect();
    let replies: Vec<Value> = asked.into_iter().map(|id| client.reply(id)).collect();
    let refused = replies
        .iter()
        .filter(|reply| reply["type"] == "error")
        .count();
    assert!((20..=40).contains(&refused), "{refused}");
    // Of one user: another one has their own.
    server.connect(&User::new("Ada")).round_trip();
}

#[test]
fn a_flood_that_goes_on_regardless_is_closed_4101() {
    let server = Server::new();
    let pair = Pair::start(&server);
    let mut client = server.connect(&User::new("Eve"));
    let request = "{\"id\":9,\"type\":\"rooms.list\",\"data\":{}}";
    // Far more than the thousand refusals after which it is enough. Before them come the commands
    // that are allowed, of which those that find too many reads waiting are refused as well.
    for _ in 0..5_000 {
        client.socket.send_text(request);
    }
    let (texts, end) = client.socket.read_to_end();
    assert_eq!(end, End::Close(Some(4101), "rate_limited".to_owned()));
    let last: Value = serde_json::from_str(texts.last().expect("told why")).expect("JSON");
    assert_eq!(
        (&last["type"], &last["data"]["code"]),
        (&json!("server.closing"), &json!(4101))
    );
    assert!(last["data"]["retry_after_ms"].as_u64() > Some(0), "{last}");
    let limited = texts
        .iter()
        .filter(|text| text.contains("\"rate_limited\""))
        .count();
    assert!((1_000..1_200).contains(&limited), "{limited}");
    pair.stop();
}

#[test]
fn too_many_frames_before_ready_are_closed_4101_or_refused() {
    let server = Server::new();
    let pair = Pair::start(&server);
    let user = User::new("Eve");
    let mut client = Client::new(Socket::open(server.address), &user);
    client.tell_auth(&user.token(), None);
    for _ in 0..3_000 {
        client
            .socket
            .send_text("{\"id\":9,\"type\":\"rooms.list\",\"data\":{}}");
    }
    let (_, end) = client.socket.read_to_end();
    assert_eq!(end, End::Close(Some(4101), "rate_limited".to_owned()));
    pair.stop();
}

#[test]
fn a_flood_of_pings_is_answered_without_holding_more_and_more() {
    let server = Server::new();
    let pair = Pair::start(&server);
    let mut client = server.connect(&User::new("Eve"));
    // Nobody reads the pongs meanwhile. Above a bound only the newest need be answered.
    for number in 0..100_000_u32 {
        client
            .socket
            .send_frame(crate::support::socket::PING, &number.to_be_bytes());
    }
    client
        .socket
        .send_text("{\"id\":9,\"type\":\"rooms.list\",\"data\":{}}");
    let mut newest = 0;
    loop {
        match client.socket.read().expect("it goes on") {
            Frame::Pong(payload) => {
                let number = u32::from_be_bytes(payload.try_into().expect("four bytes"));
                assert!(number >= newest, "in order");
                newest = number;
            }
            Frame::Text(text) => {
                assert!(text.contains("\"id\":9"), "{text}");
                break;
            }
        }
    }
    pair.stop();
}
