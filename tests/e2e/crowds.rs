//! More connections of one address or one user than there may be: others notice nothing, and whoever comes
//! last as a user gets in.

use crate::support::client::code_of;
use crate::support::pair::Pair;
use crate::support::server::{self, Server};
use crate::support::socket::{self, Answer, End, Socket, connect, upgrade_request};
use crate::support::wait::{wait_for, wait_until};
use crate::support::{Client, User};
use serde_json::Value;
use std::net::TcpStream;

/// What is logged of it.
const LOGGED: &str = "too many connections of one address";

/// What a proxy asks for this client.
fn forwarded(address: &str) -> String {
    upgrade_request(&[&format!("X-Forwarded-For: 198.51.100.1, {address}")])
}

fn refused(server: &Server, request: &str) -> Answer {
    let answer = socket::http(connect(server.address), request).expect("an answer");
    assert_eq!(answer.status, 429, "{}", answer.head);
    assert!(answer.head.contains("retry-after: "), "{}", answer.head);
    crate::openapi::validate_problem(&answer.body).expect("a problem of the document");
    let problem: Value = serde_json::from_str(&answer.body).expect("JSON");
    assert_eq!(problem["code"], "rate_limited");
    answer
}

#[test]
fn an_address_with_too_many_connections_is_answered_429() {
    let settings = [
        ("CAFFIS_CONNECTIONS_PER_IP", "18"),
        ("CAFFIS_CONNECTIONS_PER_USER", "0"),
        ("CAFFIS_TRUSTED_PROXIES", "none"),
    ];
    let mut server = server::start(&settings).anywhere();
    server.expect_log(LOGGED);
    let user = User::new("Ada");
    let mut clients: Vec<Client> = Vec::new();
    // Sockets of answers that were read to their end may not be gone yet: then one more is refused.
    wait_until("all places are taken", || {
        match Socket::upgrade(connect(server.address), &upgrade_request(&[])) {
            Ok(socket) => clients.push(Client::sign_in(socket, &user, None)),
            Err(_) => return clients.len() == 18,
        }
        assert!(clients.len() <= 18, "more than the limit");
        false
    });
    // What stands in a header of somebody who is no proxy of ours says nothing.
    refused(&server, &upgrade_request(&[]));
    refused(&server, &forwarded("203.0.113.9"));
    // Plain HTTP is answered all the while, and nobody who is there notices anything.
    assert_eq!(server.get("/healthz").status, 200);
    for client in &mut clients {
        client.round_trip();
    }
    server.wait_for_metrics("refusals", |metrics| {
        metrics.sum("caffis_driver_refused_crowded_total") >= 2.0
    });
    assert!(server.log().contains(LOGGED));
    clients.pop();
    let mut late = wait_for("the place that was given up", || {
        let socket = Socket::upgrade(connect(server.address), &upgrade_request(&[])).ok()?;
        Some(Client::sign_in(socket, &user, None))
    });
    late.round_trip();
}

#[test]
fn behind_a_proxy_each_client_is_counted_by_its_own_address() {
    let settings = [
        ("CAFFIS_CONNECTIONS_PER_IP", "3"),
        ("CAFFIS_CONNECTIONS_PER_USER", "0"),
        ("CAFFIS_TRUSTED_PROXIES", "127.0.0.0/8, 10.0.0.0/8"),
    ];
    let mut server = server::start(&settings).anywhere();
    server.expect_log(LOGGED);
    let user = User::new("Ada");
    let come = |address: &str| {
        let socket = Socket::upgrade(connect(server.address), &forwarded(address));
        Client::sign_in(socket.expect("upgraded"), &user, None)
    };
    let mut clients: Vec<Client> = (0..3).map(|_| come("203.0.113.9, 10.1.1.1")).collect();
    let answer = refused(&server, &forwarded("203.0.113.9"));
    assert!(answer.head.starts_with("http/1.1 429"), "{}", answer.head);
    // Another one, an IPv6 network of its own, and what tells nothing but proxies.
    clients.push(come("203.0.113.10"));
    clients.extend((0..3).map(|n| come(&format!("2001:db8:1:2::{n}"))));
    refused(&server, &forwarded("2001:db8:1:2:ffff::1"));
    clients.push(come("2001:db8:1:3::1"));
    for _ in 0..5 {
        let socket = Socket::upgrade(connect(server.address), &upgrade_request(&[]));
        clients.push(Client::sign_in(socket.expect("upgraded"), &user, None));
    }
    for client in &mut clients {
        client.round_trip();
    }
    // The proxy itself comes as often as it likes.
    assert_eq!(server.get("/healthz").status, 200);
    clients.remove(0);
    wait_for("the place that was given up", || {
        Socket::upgrade(connect(server.address), &forwarded("203.0.113.9")).ok()
    });
}

#[test]
fn an_address_that_only_holds_sockets_keeps_out_nobody_who_is_signed_in() {
    // A quarter of them, at least 16, may be such that have not signed in.
    let settings = [
        ("CAFFIS_CONNECTIONS_PER_IP", "60"),
        ("CAFFIS_TRUSTED_PROXIES", "none"),
    ];
    let mut server = server::start(&settings).anywhere();
    server.expect_log(LOGGED);
    let pair = Pair::start(&server);
    // Some say nothing at all, some are upgraded and say no more.
    let silent: Vec<TcpStream> = (0..8).map(|_| connect(server.address)).collect();
    let mut mute: Vec<Socket> = Vec::new();
    wait_until("no more are taken", || {
        match Socket::upgrade(connect(server.address), &upgrade_request(&[])) {
            Ok(socket) => mute.push(socket),
            Err(_) => return true,
        }
        assert!(mute.len() + silent.len() <= 16, "more than the limit");
        false
    });
    pair.talk(10);
    drop((silent, mute));
    let user = User::new("Late");
    let mut late = wait_for("a place", || {
        let socket = Socket::upgrade(connect(server.address), &upgrade_request(&[])).ok()?;
        Some(Client::sign_in(socket, &user, None))
    });
    late.round_trip();
    pair.stop();
}

#[test]
fn when_a_user_has_too_many_connections_the_oldest_goes() {
    let server = server::start(&[("CAFFIS_CONNECTIONS_PER_USER", "3")]).anywhere();
    let mut other = server.connect(&User::new("Bob"));
    let mut users = 0;
    // The kernel chooses the shards: until the two that matter were different ones.
    wait_until("a user on both shards", || {
        users += 1;
        let ada = User::new("Ada");
        let mut clients: Vec<Client> = (0..3).map(|_| server.connect(&ada)).collect();
        for client in &mut clients {
            client.round_trip();
        }
        let mut newest = server.connect(&ada);
        let mut oldest = clients.remove(0);
        let closing = oldest.event_of("server.closing");
        assert_eq!(closing["data"]["code"], 4103);
        // So late that clients above the limit do not take turns.
        let retry_after_ms = closing["data"]["retry_after_ms"].as_u64().expect("a time");
        assert!((30_000..60_000).contains(&retry_after_ms), "{closing}");
        let end = End::Close(Some(4103), "connection_limit".to_owned());
        assert_eq!(oldest.end(), end);
        for client in clients.iter_mut().chain([&mut newest, &mut other]) {
            client.round_trip();
        }
        oldest.shard() != newest.shard()
    });
    server.wait_for_metrics("the refusals", |metrics| {
        metrics.sum("caffis_closed_crowded_total") >= f64::from(users)
    });
}

#[test]
fn a_token_that_is_refused_takes_nobodys_place() {
    let server = server::start(&[("CAFFIS_CONNECTIONS_PER_USER", "1")]).anywhere();
    let user = User::new("Ada");
    let mut client = server.connect(&user);
    for _ in 0..3 {
        let mut stranger = Client::new(Socket::open(server.address), &user);
        let id = stranger.tell_auth("not.a.token", None);
        assert_eq!(code_of(&stranger.reply(id)), "unauthenticated");
    }
    client.round_trip();
}
