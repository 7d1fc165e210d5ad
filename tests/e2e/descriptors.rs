//! More connections than there can be: new ones are refused or wait, those that are there go on, and
//! nobody spins.

use crate::support::pair::Pair;
use crate::support::server::{self, Server};
use crate::support::socket::{self, Socket, connect, upgrade_request};
use crate::support::wait::{wait_for, wait_until};
use crate::support::{Client, User};
use serde_json::Value;
use std::io::Write;
use std::net::TcpStream;
use std::time::Instant;

#[test]
fn connections_beyond_the_limit_are_told_to_come_back() {
    let settings = [
        ("CAFFIS_CONNECTIONS_MAX", "40"),
        ("CAFFIS_CONNECTIONS_PER_USER", "0"),
    ];
    let server = server::start(&settings).anywhere();
    let user = User::new("Ada");
    let mut clients: Vec<Client> = Vec::new();
    let answer = loop {
        assert!(clients.len() <= 40, "more than the limit");
        match Socket::upgrade(connect(server.address), &upgrade_request(&[])) {
            Ok(socket) => clients.push(Client::sign_in(socket, &user, None)),
            // The kernel spreads connections over the shards, each of which has its part.
            Err(_) => break socket::http(connect(server.address), &upgrade_request(&[])),
        }
    };
    assert!(
        clients.len() >= 20,
        "{} are one shard's part",
        clients.len()
    );
    for client in &mut clients {
        client.round_trip();
    }
    // The next one may be the other shard's, which may have a place.
    if let Ok(answer) = answer
        && answer.status != 101
    {
        assert_eq!(answer.status, 503);
        assert!(answer.head.contains("retry-after: "), "{}", answer.head);
        crate::openapi::validate_problem(&answer.body).expect("a problem of the document");
        let problem: Value = serde_json::from_str(&answer.body).expect("JSON");
        assert_eq!(problem["code"], "overloaded");
    }
    // Others can look at it all the while.
    assert_eq!(server.get("/healthz").status, 200);
    // A place that is given up is taken by the next one.
    clients.clear();
    wait_for("a place", || {
        Socket::upgrade(connect(server.address), &upgrade_request(&[])).ok()
    });
}

/// Files that the server may have open: 64 more than it needs to start.
const FILES_MAX: usize = 480;

#[test]
fn without_descriptors_the_server_waits_without_spinning_and_recovers() {
    let mut server: Server = server::start(&[]).files_max(FILES_MAX).anywhere();
    server.expect_log("cannot accept connections");
    let pair = Pair::start(&server);
    // What a while of talking costs, to compare with.
    const EXCHANGES: usize = 12;
    let cost = |server: &Server| {
        let (before_s, began) = (server.cpu_s(), Instant::now());
        pair.talk(EXCHANGES);
        (server.cpu_s() - before_s, began.elapsed().as_secs_f64())
    };
    let (usual_s, _) = cost(&server);

    // Connections that say nothing hold a descriptor each until they are given up, so there are
    // always more of them than there are descriptors.
    let mut silent: Vec<TcpStream> = (0..2 * FILES_MAX)
        .map(|_| connect(server.address))
        .collect();
    wait_until("a lack of descriptors", || {
        server.log().contains("cannot accept connections")
    });
    assert!(server.files() >= FILES_MAX - 2, "{}", server.files());
    let (cpu_s, wall_s) = cost(&server);
    assert!(
        cpu_s < 3.0 * usual_s + 0.2 * wall_s,
        "{cpu_s} s of CPU time in {wall_s} s, usually {usual_s}"
    );
    let lines = server.log().matches("cannot accept connections").count();
    assert!(lines <= 8, "{lines} lines of the log");

    // When they are gone everybody can come again.
    for stream in &mut silent {
        let _given_up = stream.write_all(b"GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
    }
    drop(silent);
    let user = User::new("Late");
    let mut client = wait_for("a descriptor", || {
        let socket = Socket::upgrade(connect(server.address), &upgrade_request(&[])).ok()?;
        Some(Client::sign_in(socket, &user, None))
    });
    client.round_trip();
    pair.stop();
    // What was asked above has all of the control plane's places until it is answered.
    wait_until("a place to ask", || server.get("/healthz").status == 200);
    let metrics = server.metrics();
    assert!(metrics.sum("caffis_driver_accept_pauses_total") >= 1.0);
}
