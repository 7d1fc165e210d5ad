//! Bytes that break HTTP, WebSocket or the rules of frames: each is answered with its own code, and
//! two people who talk meanwhile notice nothing.

use crate::openapi;
use crate::support::pair::Pair;
use crate::support::socket::{
    self, BINARY, CLOSE, CONTINUATION, End, FIN, Frame, PING, Socket, TEXT, connect, frame,
    read_answer, upgrade_request,
};
use crate::support::wait::DEADLINE;
use crate::support::{Client, Server, User};
use serde_json::Value;
use std::io::{Read, Write};
use std::time::{Duration, Instant};

/// Does something bad while two people talk, who must be able to go on.
fn while_two_talk(bad: impl FnOnce(&Server)) {
    let server = Server::new();
    let pair = Pair::start(&server);
    bad(&server);
    pair.stop();
}

/// A client who is signed in sends these bytes and is closed with this code.
fn closed(server: &Server, bytes: &[u8], code: u16) {
    for signed_in in [true, false] {
        let user = User::new("Eve");
        let mut client = match signed_in {
            true => server.connect(&user),
            false => Client::new(Socket::open(server.address), &user),
        };
        client.socket.send_bytes(bytes);
        let (_, end) = client.socket.read_to_end();
        let shown = &bytes[..bytes.len().min(20)];
        match end {
            End::Close(Some(own), reason) => {
                assert_eq!(own, code, "{reason}: {shown:?}");
                assert!(!reason.is_empty());
            }
            other => panic!("{other:?} instead of {code}: {shown:?}"),
        }
    }
}

/// A text message in these parts, in a frame each.
fn fragments(parts: &[&[u8]]) -> Vec<u8> {
    let last = parts.len() - 1;
    let mut bytes = Vec::new();
    for (number, part) in parts.iter().enumerate() {
        let opcode = if number == 0 { TEXT } else { CONTINUATION };
        let fin = if number == last { FIN } else { 0 };
        bytes.extend(frame(fin | opcode, part));
    }
    bytes
}

#[test]
fn text_that_is_not_utf8_is_closed_1007() {
    while_two_talk(|server| {
        let cut = "☕".as_bytes();
        for payload in [
            &b"{\"type\":\"\xff\"}"[..],
            b"\xc0\x80",
            b"\xed\xa0\x80",
            b"\xf5\x80\x80\x80",
            &cut[..2],
        ] {
            closed(server, &frame(FIN | TEXT, payload), 1007);
        }
        // In parts it is seen as the bytes arrive: the message need not end for it.
        closed(server, &frame(TEXT, b"{\"type\":\"\xff"), 1007);
        closed(server, &fragments(&[&cut[..1], b"x"]), 1007);
    });
}

#[test]
fn a_message_above_the_limit_is_closed_1009() {
    while_two_talk(|server| {
        closed(server, &frame(FIN | TEXT, &[b'x'; 65_537]), 1009);
        // The header alone says it: nobody waits for what it announces.
        let announced = [FIN | TEXT, 0x80 | 127, 0, 0, 0, 1, 0, 0, 0, 0, 1, 2, 3, 4];
        closed(server, &announced, 1009);
        let half = [b'x'; 33_000];
        closed(server, &fragments(&[&half, &half]), 1009);
    });
}

#[test]
fn a_message_of_the_largest_size_is_read() {
    let server = Server::new();
    let mut client = server.connect(&User::new("Ada"));
    for length in [65_535, 65_536] {
        let mut text =
            format!("{{\"id\":{length},\"type\":\"rooms.list\",\"data\":{{}},\"filler\":\"");
        text += &"x".repeat(length - text.len() - 2);
        text += "\"}";
        assert_eq!(text.len(), length);
        client.tell_text(length as u64, "rooms.list", &text);
        assert_eq!(client.reply(length as u64)["type"], "ack");
    }
}

#[test]
fn a_hundred_thousand_empty_fragments_are_closed_4008() {
    while_two_talk(|server| {
        let parts: Vec<&[u8]> = vec![b""; 100_000];
        closed(server, &fragments(&parts), 4008);
        // Without an end too.
        let mut endless = frame(TEXT, b"");
        for _ in 0..100_000 {
            endless.extend(frame(CONTINUATION, b""));
        }
        closed(server, &endless, 4008);
    });
}

#[test]
fn a_message_in_parts_with_pings_between_them_is_read() {
    let server = Server::new();
    let mut client = server.connect(&User::new("Ada"));
    let text =
        "{\"id\":700,\"type\":\"rooms.list\",\"data\":{},\"note\":\"in parts ☕\"}".as_bytes();
    for size in [1, 2, 7, 30] {
        let parts: Vec<&[u8]> = text.chunks(size).collect();
        let whole = fragments(&parts);
        // One chunk, byte by byte, and with a ping after the first part.
        client.tell_text(700, "rooms.list", "");
        client.socket.send_bytes(&whole);
        // The empty message above was no request.
        let refused = client.reply(0);
        assert_eq!(refused["error"]["code"], "bad_request");
        assert_eq!(client.reply(700)["type"], "ack");
    }
    let parts: Vec<&[u8]> = text.chunks(20).collect();
    client.tell_text(700, "rooms.list", "");
    for (number, part) in parts.iter().enumerate() {
        let opcode = if number == 0 { TEXT } else { CONTINUATION };
        let fin = if number == parts.len() - 1 { FIN } else { 0 };
        for byte in frame(fin | opcode, part) {
            client.socket.send_bytes(&[byte]);
        }
        client.socket.send_frame(PING, b"between");
    }
    assert_eq!(client.reply(700)["type"], "ack");
}

#[test]
fn binary_messages_are_closed_4008() {
    while_two_talk(|server| {
        closed(server, &frame(FIN | BINARY, b"\x00\x01\x02"), 4008);
        closed(server, &frame(FIN | BINARY, b"{\"type\":\"pong\"}"), 4008);
    });
}

#[test]
fn frames_that_break_rfc_6455_are_closed_1002() {
    while_two_talk(|server| {
        let unmasked = [FIN | TEXT, 2, b'{', b'}'];
        closed(server, &unmasked, 1002);
        for first in [FIN | TEXT | 0x40, FIN | TEXT | 0x20, FIN | TEXT | 0x10] {
            closed(server, &frame(first, b"{}"), 1002);
        }
        for opcode in [3, 4, 5, 6, 7, 11, 12, 13, 14, 15] {
            closed(server, &frame(FIN | opcode, b"{}"), 1002);
        }
        // Control frames are whole and short.
        closed(server, &frame(PING, b"part"), 1002);
        closed(server, &frame(FIN | PING, &[0; 126]), 1002);
        // A continuation of nothing, and a message within a message.
        closed(server, &frame(FIN | CONTINUATION, b"x"), 1002);
        let mut nested = frame(TEXT, b"{");
        nested.extend(frame(FIN | TEXT, b"}"));
        closed(server, &nested, 1002);
        // Close frames of one byte, or with codes that nobody may send.
        closed(server, &frame(FIN | CLOSE, b"x"), 1002);
        for code in [0_u16, 999, 1005, 1006, 1015, 2_000, 65_535] {
            closed(server, &frame(FIN | CLOSE, &code.to_be_bytes()), 1002);
        }
    });
}

#[test]
fn a_close_is_answered_with_its_own_code() {
    let server = Server::new();
    for code in [1000_u16, 1001, 3_000, 4_999] {
        let mut client = server.connect(&User::new("Ada"));
        client.socket.send_frame(CLOSE, &code.to_be_bytes());
        let (_, end) = client.socket.read_to_end();
        assert!(
            matches!(end, End::Close(Some(own), _) if own == code),
            "{end:?}"
        );
    }
    let mut client = server.connect(&User::new("Ada"));
    client.socket.send_frame(CLOSE, b"");
    let (_, end) = client.socket.read_to_end();
    assert_eq!(end, End::Close(None, String::new()));
    server.wait_for_metrics("their places to be free", |metrics| {
        metrics.sum("caffis_connections") == 0.0 && metrics.sum("caffis_driver_sockets") <= 1.0
    });
}

/// An answer that is no upgrade: its status, and the code that it gives as problem+json.
fn refused(server: &Server, request: &str) -> (u16, String) {
    let answer = socket::http(connect(server.address), request).expect("an answer");
    assert!(
        answer
            .head
            .contains("content-type: application/problem+json"),
        "{}",
        answer.head
    );
    openapi::validate_problem(&answer.body).expect("a problem of the document");
    let problem: Value = serde_json::from_str(&answer.body).expect("JSON");
    assert_eq!(problem["status"], answer.status);
    let temporary = [429, 503].contains(&answer.status);
    assert_eq!(problem["temporary"], temporary, "{problem}");
    (
        answer.status,
        problem["code"].as_str().expect("a code").to_owned(),
    )
}

#[test]
fn a_page_of_another_origin_is_refused_403() {
    while_two_talk(|server| {
        for origin in [
            "https://evil.example",
            "null",
            "http://localhost.evil.example",
            "",
        ] {
            let request = upgrade_request(&[&format!("Origin: {origin}")]);
            assert_eq!(
                refused(server, &request),
                (403, "forbidden".to_owned()),
                "{origin:?}"
            );
        }
        for origin in [
            "http://localhost:3000",
            "http://127.0.0.1:8080",
            "http://[::1]",
        ] {
            let request = upgrade_request(&[&format!("Origin: {origin}")]);
            Socket::upgrade(connect(server.address), &request).expect("one's own page");
        }
    });
}

#[test]
fn upgrades_that_are_not_spoken_are_refused_as_http_says() {
    while_two_talk(|server| {
        let good = upgrade_request(&[]);
        let without = |line: &str| -> String {
            assert!(good.contains(line));
            good.replace(line, "X-Nothing: nothing")
        };
        let bad = (400, "bad_request".to_owned());
        for request in [
            without("Sec-WebSocket-Protocol: caffis.chat.v1"),
            good.replace("caffis.chat.v1", "other.chat.v1"),
            without("Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ=="),
            good.replace("GET /v1/ws HTTP/1.1", "GET /v1/ws HTTP/1.1\r\nno colon"),
        ] {
            assert_eq!(refused(server, &request), bad, "{request}");
        }
        let upgrade = (426, "bad_request".to_owned());
        for request in [
            without("Upgrade: websocket"),
            good.replace("Sec-WebSocket-Version: 13", "Sec-WebSocket-Version: 8"),
        ] {
            assert_eq!(refused(server, &request), upgrade, "{request}");
        }
        let long = upgrade_request(&[&format!("X-Filler: {}", "x".repeat(9_000))]);
        assert_eq!(refused(server, &long), (431, "too_large".to_owned()));
    });
}

#[test]
fn another_version_of_the_protocol_is_closed_by_its_code() {
    while_two_talk(|server| {
        let request = upgrade_request(&[]).replace("caffis.chat.v1", "caffis.chat.v9");
        let mut stream = connect(server.address);
        stream.set_read_timeout(Some(DEADLINE)).expect("an option");
        stream.write_all(request.as_bytes()).expect("sent");
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer).expect("it ends");
        let frame = b"\r\n\r\n\x88\x15\x0f\xa9version_unsupported";
        assert!(answer.ends_with(frame), "{answer:?}");
        let head = String::from_utf8_lossy(&answer).to_ascii_lowercase();
        assert!(head.starts_with("http/1.1 101 "), "{head}");
        assert!(head.contains("sec-websocket-protocol: caffis.chat.v9\r\n"));
    });
}

#[test]
fn an_upgrade_that_comes_byte_by_byte_is_answered() {
    let server = Server::new();
    let mut stream = connect(server.address);
    for byte in upgrade_request(&[]).as_bytes() {
        stream.write_all(&[*byte]).expect("sent");
    }
    let mut socket = Socket::upgraded(stream).expect("upgraded");
    socket.send_frame(PING, b"?");
    assert_eq!(socket.read(), Ok(Frame::Pong(b"?".to_vec())));
}

#[test]
fn auth_in_the_same_packet_as_the_upgrade_is_answered() {
    let server = Server::new();
    let user = User::new("Ada");
    let auth = format!(
        "{{\"id\":1,\"type\":\"auth\",\"data\":{{\"token\":\"{}\"}}}}",
        user.token()
    );
    let mut bytes = upgrade_request(&[]).into_bytes();
    bytes.extend(frame(FIN | TEXT, auth.as_bytes()));
    let mut stream = connect(server.address);
    stream.write_all(&bytes).expect("sent");
    let mut socket = Socket::upgraded(stream).expect("upgraded");
    match socket.read() {
        Ok(Frame::Text(text)) => assert!(text.contains("\"type\":\"ready\""), "{text}"),
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_request_that_stalls_is_given_up_within_its_time() {
    while_two_talk(|server| {
        let began = Instant::now();
        let starts = [
            "",
            "GET /v1/ws HT",
            "GET /v1/ws HTTP/1.1\r\nHost: x\r\nUpgr",
        ];
        let streams = starts.map(|start| {
            let mut stream = connect(server.address);
            stream.write_all(start.as_bytes()).expect("sent");
            stream
        });
        // Half a request for the control plane.
        let mut other = connect(server.address);
        other
            .write_all(b"GET /metrics HTTP/1.1\r\nHost: x\r\n")
            .expect("sent");
        for (stream, start) in streams.into_iter().zip(starts) {
            let answer = read_answer(stream).unwrap_or_else(|error| panic!("{start:?}: {error}"));
            assert_eq!(answer.status, 408, "{start:?}");
            let took = began.elapsed();
            let expected = Duration::from_secs(9)..Duration::from_secs(25);
            assert!(expected.contains(&took), "{took:?}");
        }
        other.set_read_timeout(Some(DEADLINE)).expect("an option");
        let mut rest = Vec::new();
        // With an answer or without one: it ends.
        other.read_to_end(&mut rest).expect("the end of the stream");
        assert!(began.elapsed() < Duration::from_secs(25));
    });
}

#[test]
fn connections_that_vanish_in_any_state_leave_nothing_behind() {
    let server = Server::new();
    let user = User::new("Ada");
    for _ in 0..20 {
        drop(connect(server.address));
        let mut half = connect(server.address);
        half.write_all(b"GET /v1/ws HTTP/1.1\r\n").expect("sent");
        drop(half);
        drop(Socket::open(server.address));
        let mut socket = Socket::open(server.address);
        socket.send_bytes(&frame(TEXT, b"{\"id\""));
        drop(socket);
        let mut client = Client::new(Socket::open(server.address), &user);
        client.tell_auth(&user.token(), None);
        drop(client);
        let mut client = server.connect(&user);
        client.tell("rooms.list", &serde_json::json!({}));
        drop(client);
    }
    let metrics = server.wait_for_metrics("their places to be free", |metrics| {
        metrics.sum("caffis_connections") == 0.0
            && metrics.sum("caffis_sessions") == 0.0
            && metrics.sum("caffis_rooms_local") == 0.0
            && metrics.sum("caffis_outbox_bytes") == 0.0
            // The connection that asks may be counted.
            && metrics.sum("caffis_driver_sockets") <= 1.0
    });
    assert_eq!(metrics.sum("caffis_driver_open"), 0.0);
    assert_eq!(metrics.sum("caffis_anomalies_total"), 0.0);
    server.connect(&user).round_trip();
}
