//! What operators ask over HTTP.

use crate::support::client::message;
use crate::support::metrics::Metrics;
use crate::support::socket::{self, connect};
use crate::support::{Server, User};
use serde_json::Value;
use uuid::Uuid;

#[test]
fn health_and_readiness_are_told() {
    let server = Server::new();
    for path in ["/healthz", "/readyz"] {
        let answer = server.get(path);
        assert_eq!(answer.status, 200, "{path}: {}", answer.body);
        assert!(
            answer.head.contains("cache-control: no-store"),
            "{}",
            answer.head
        );
    }
    let answer = server.get("/nothing/here");
    assert_eq!(answer.status, 404);
    let problem: Value = serde_json::from_str(&answer.body).expect("problem+json");
    assert_eq!(problem["code"], "not_found");
}

#[test]
fn the_document_that_is_served_is_the_committed_one() {
    let server = Server::new();
    let answer = server.get("/v1/asyncapi.json");
    assert_eq!(answer.status, 200);
    assert!(
        answer.head.contains("content-type: application/json"),
        "{}",
        answer.head
    );
    assert_eq!(answer.body, include_str!("../../docs/asyncapi.json"));
}

#[test]
fn a_user_of_the_demo_login_can_talk() {
    let server = Server::new();
    let body = "{\"name\":\"Ada\"}";
    let request = format!(
        "POST /v1/demo/login HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\
         Content-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    );
    let answer = socket::http(connect(server.address), &request).expect("an answer");
    assert_eq!(answer.status, 200, "{}", answer.body);
    let login: Value = serde_json::from_str(&answer.body).expect("JSON");
    let mut socket = socket::Socket::open(server.address);
    let auth = serde_json::json!({"id": 1, "type": "auth", "data": {"token": login["token"]}});
    socket.send_text(&auth.to_string());
    match socket.read() {
        Ok(socket::Frame::Text(text)) => {
            let ready: Value = serde_json::from_str(&text).expect("JSON");
            assert_eq!(ready["data"]["user_id"], login["user_id"]);
        }
        other => panic!("{other:?}"),
    }
}

/// The histograms of a page: their names, each whole.
fn histograms(metrics: &Metrics) -> Vec<String> {
    let is_histogram = |(_, kind): &(&String, &String)| *kind == "histogram";
    let names = metrics.kinds.iter().filter(is_histogram);
    let names: Vec<String> = names.map(|(name, _)| name.clone()).collect();
    for name in &names {
        let (bucket, count) = (format!("{name}_bucket"), format!("{name}_count"));
        for (labels, count) in metrics.each(&count) {
            let buckets: Vec<(f64, f64)> = (metrics.each(&bucket))
                .filter_map(|(own, value)| {
                    let bound = own.strip_prefix(labels)?.strip_prefix(",le=\"")?;
                    let bound = bound
                        .strip_suffix('"')
                        .expect("a quote")
                        .replace("+Inf", "inf");
                    Some((bound.parse().expect("a number"), value))
                })
                .collect();
            let mut sorted = buckets.clone();
            sorted.sort_by(|a, b| a.0.total_cmp(&b.0));
            assert!(
                sorted.is_sorted_by_key(|(_, value)| *value),
                "{name} {sorted:?}"
            );
            assert_eq!(sorted.last(), Some(&(f64::INFINITY, count)), "{name}");
        }
    }
    names
}

#[test]
fn metrics_count_what_was_sent_at_every_stage() {
    let server = Server::unlimited();
    let (ada, bob) = (User::new("Ada"), User::new("Bob"));
    let mut ada_client = server.connect_on(0, &ada);
    let mut bob_client = server.connect_on(1, &bob);
    let room = ada_client.direct(&bob);
    let mut last_seq = 0;
    for number in 0..30 {
        let data = message(room, Uuid::now_v7(), &number.to_string());
        let first = ada_client.ack("message.send", &data);
        if number % 10 == 0 {
            ada_client.ack("message.send", &data);
        }
        last_seq = first["seq"].as_u64().expect("a seq");
    }
    for client in [&mut ada_client, &mut bob_client] {
        client.wait_for_seq(room, last_seq);
    }
    ada_client.refusal("room.get", &serde_json::json!({"room_id": Uuid::new_v4()}));
    // The counters come about once a second.
    let metrics = server.wait_for_metrics("all that was sent", |metrics| {
        metrics.sum("caffis_messages_committed_total") == 30.0
            && metrics.sum("caffis_published_to_written_seconds_count") >= 60.0
            && metrics.sum("caffis_commands_refused_total") == 1.0
            && metrics.sum("caffis_sessions") == 2.0
    });
    assert_eq!(metrics.sum("caffis_messages_duplicate_total"), 3.0);
    assert_eq!(metrics.sum("caffis_connections"), 2.0);
    assert_eq!(metrics.sum("caffis_anomalies_total"), 0.0);
    assert_eq!(metrics.sum("caffis_closed_slow_total"), 0.0);
    assert_eq!(metrics.sum("caffis_log_lines_total"), 0.0);
    assert_eq!(metrics.sum("caffis_shards"), 2.0);
    // Thirty messages, the opening of the room, and three retries.
    assert_eq!(
        metrics.sum("caffis_received_to_committed_seconds_count"),
        34.0
    );
    // Each of 30 events was released once, and written to two connections; the one that opened the
    // room may have been there before anybody listened.
    let released = metrics.sum("caffis_events_released_total");
    assert!((30.0..=31.0).contains(&released), "{released}");
    let published = metrics.sum("caffis_committed_to_published_seconds_count");
    assert_eq!(published, released);
    let written = metrics.sum("caffis_published_to_written_seconds_count");
    assert!((60.0..=62.0).contains(&written), "{written}");
    let stages = histograms(&metrics);
    assert_eq!(stages.len(), 3, "{stages:?}");
    assert!(metrics.sum("process_cpu_seconds_total") > 0.0);
    assert!(metrics.sum("process_resident_memory_bytes") > 1e6);
}
