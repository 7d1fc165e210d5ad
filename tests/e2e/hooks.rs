//! Webhooks out: whom a receiver is told to push to, and that it is told of everything, whatever is killed or away.

use crate::admin::{Service, TOKENS};
use crate::postgres::PostgresServer;
use crate::redis::Redis;
use crate::support::receiver::{Got, OUT, OUT_NEXT, Receiver};
use crate::support::server::{self, NO_LIMIT, Server};
use crate::support::wait::{wait_for, wait_until};
use crate::support::{Client, User};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::net::TcpListener;
use std::path::Path;
use std::thread;
use uuid::Uuid;

const WARNINGS: &[&str] = &[
    "a webhook is given up",
    "the receiver of webhooks answers 410",
];

/// How to start a node that tells this receiver.
fn telling<'a>(url: &'a str, more: &[(&'a str, &'a str)]) -> server::Start<'a> {
    let mut settings = NO_LIMIT.to_vec();
    settings.push(("CAFFIS_WEBHOOK_OUT_URL", url));
    settings.push(("CAFFIS_WEBHOOK_OUT_SECRETS", OUT));
    settings.push(("CAFFIS_WEBHOOK_OUT_RETRY_MS", "50"));
    settings.push(("CAFFIS_PUSH_GRACE_MS", "100"));
    settings.push(("CAFFIS_ADMIN_TOKEN", TOKENS));
    settings.extend_from_slice(more);
    server::start(&settings)
}

/// A node that has the work.
fn ready(start: server::Start<'_>, folder: Option<&Path>) -> Server {
    let mut server = match folder {
        Some(folder) => start.within(folder),
        None => start.anywhere(),
    };
    for warning in WARNINGS {
        server.expect_log(warning);
    }
    wait_until("the work", || {
        server.metrics().sum("caffis_webhooks_out_holds") == 1.0
    });
    server
}

/// Users who were there once, and have no connection.
fn known<const N: usize>(server: &Server, names: [&str; N]) -> [User; N] {
    names.map(|name| {
        let user = User::new(name);
        drop(server.connect(&user));
        user
    })
}

fn pushes_of(all: &[Got], user: &User) -> Vec<Value> {
    let own = all.iter().filter(|got| got.is_of(user.id));
    own.map(|got| got.data().clone()).collect()
}

/// The `seq`s of a user's pushes, room by room, in the order in which they were taken.
fn seqs_by_room(all: &[Got], user: &User) -> BTreeMap<String, Vec<u64>> {
    let mut rooms: BTreeMap<String, Vec<u64>> = BTreeMap::new();
    for push in pushes_of(all, user) {
        let room = push["room_id"].as_str().expect("a room").to_owned();
        let seq = push["message_seq"].as_u64().expect("a seq");
        rooms.entry(room).or_default().push(seq);
    }
    rooms
}

fn reads(client: &mut Client, room: Uuid, seq: u64) {
    client.tell_only("receipt.read", &json!({"rooms": {room.to_string(): seq}}));
    client.round_trip();
}

#[test]
fn of_what_happens_as_soon_as_a_node_is_there_the_receiver_is_told() {
    let receiver = Receiver::start();
    let url = receiver.url();
    // The first node ever, and one that comes back.
    let folder = tempfile::tempdir().expect("a folder");
    for count in 1..=2 {
        let mut server = telling(&url, &[]).within(folder.path());
        // Nothing is waited for but that it is ready.
        let room = server.connect(&User::new("Ada")).group(&[]);
        let created = receiver.wait_for("room.created", count);
        assert_eq!(created[count - 1].data()["room_id"], json!(room));
        server.terminate();
        server.ended();
    }
}

#[test]
fn who_has_no_connection_gets_one_push_and_it_is_taken_back_when_they_read() {
    let receiver = Receiver::start();
    let url = receiver.url();
    // Both secrets sign, so the receiver may know either.
    let secrets = [OUT_NEXT, OUT].join(",");
    let settings = [("CAFFIS_WEBHOOK_OUT_SECRETS", &*secrets)];
    let server = ready(telling(&url, &settings), None);
    let [carol] = known(&server, ["Carol"]);
    let (ada, bob) = (User::new("Ada"), User::new("Bob"));
    let (mut adas, mut bobs) = (server.connect(&ada), server.connect(&bob));
    let room = adas.group(&[&bob, &carol]);
    let created = receiver.wait_for("room.created", 1).remove(0);
    assert_eq!(created.data()["room_id"], json!(room));
    assert_eq!(created.data()["created_by"], json!(ada.id));
    assert_eq!(created.data()["member_count"], 3);
    let seq = adas.send(room, "Coffee, Carol?");
    bobs.wait_for_seq(room, seq);
    let push = receiver.wait_for("push.required", 1).remove(0);
    assert!(push.id.starts_with("msg_"), "{}", push.id);
    let mut data = push.data().clone();
    let sent_at = data["sent_at"].take();
    assert!(
        sent_at.as_str().is_some_and(|at| at.ends_with('Z')),
        "{sent_at}"
    );
    assert_eq!(
        data,
        json!({
            "user_id": carol.id, "room_id": room, "room_kind": "group", "room_title": "A group",
            "message_seq": seq, "sent_at": null, "sender_id": ada.id, "sender_name": ada.name,
            "message_kind": "text", "preview": "Coffee, Carol?", "mentioned": false, "unread": 1,
            "badge": 1,
        })
    );
    // Carol comes, and reads: that is all she is told of.
    let mut carols = server.connect(&carol);
    reads(&mut carols, room, seq);
    let cancelled = receiver.wait_for("push.cancelled", 1).remove(0);
    assert_eq!(
        *cancelled.data(),
        json!({
            "user_id": carol.id, "room_id": room, "up_to_seq": seq, "unread": 0, "badge": 0,
        })
    );
    drop(carols);
    let last = adas.send(room, "Tea, then?");
    let all = receiver.wait_for("push.required", 2);
    assert_eq!(all.len(), 2, "nobody who is connected: {all:?}");
    assert_eq!(seqs_by_room(&all, &carol)[&room.to_string()], [seq, last]);
    // A report goes the same way.
    let reported = json!({"room_id": room, "message_seq": seq});
    bobs.ack("message.report", &reported);
    let report = receiver.wait_for("message.reported", 1).remove(0);
    assert_eq!(report.data()["reporter_id"], json!(bob.id));
    assert_eq!(report.data()["sender_id"], json!(ada.id));
    let reports = Service::new(&server).get("reports").is(200);
    assert_eq!(
        reports["reports"][0]["report_id"],
        report.data()["report_id"]
    );
}

#[test]
fn what_is_read_within_the_grace_is_not_pushed_and_previews_may_be_off() {
    let receiver = Receiver::start();
    let url = receiver.url();
    let settings = [
        ("CAFFIS_PUSH_GRACE_MS", "6000"),
        ("CAFFIS_PUSH_PREVIEW", "false"),
    ];
    let server = ready(telling(&url, &settings), None);
    let [bob] = known(&server, ["Bob"]);
    let mut adas = server.connect(&User::new("Ada"));
    let room = adas.direct(&bob);
    let first = adas.send(room, "Are you there?");
    let mut bobs = server.connect(&bob);
    reads(&mut bobs, room, first);
    // It is written when the others hear of it.
    wait_until("the receipt", || {
        let told = adas.take_event_of("receipt.updated");
        adas.round_trip();
        told.is_some_and(|told| told["data"]["read_seq"] == first)
    });
    drop(bobs);
    let second = adas.send(room, "See you.");
    let all = receiver.wait_for("push.required", 1);
    assert_eq!(seqs_by_room(&all, &bob)[&room.to_string()], [second]);
    assert_eq!(all[0].data()["preview"], Value::Null);
    assert!(!all[0].body.contains("See you"), "{}", all[0].body);
}

#[test]
fn a_worker_that_is_killed_while_it_tells_loses_nothing() {
    let (receiver, folder) = (Receiver::start(), tempfile::tempdir().expect("a folder"));
    let url = receiver.url();
    let server = ready(telling(&url, &[]), Some(folder.path()));
    let [bob] = known(&server, ["Bob"]);
    let mut adas = server.connect(&User::new("Ada"));
    let room = adas.direct(&bob);
    receiver.wait_for("room.created", 1);
    receiver.hangs();
    let mut seqs: Vec<u64> = (0..5).map(|n| adas.send(room, &format!("{n}"))).collect();
    wait_until("one under way", || {
        receiver.all().iter().any(|got| got.status == 0)
    });
    let under_way = receiver
        .all()
        .iter()
        .find(|got| got.status == 0)
        .expect("it is")
        .clone();
    seqs.push(adas.send(room, "and one just before the end"));
    server.kill();
    receiver.answers(200, "");
    let _server = ready(telling(&url, &[]), Some(folder.path()));
    let all = receiver.wait_for("push.required", seqs.len());
    assert_eq!(all[0].id, under_way.id, "the same once more, and first");
    assert_eq!(seqs_by_room(&all, &bob)[&room.to_string()], seqs);
}

#[test]
fn a_receiver_that_is_away_is_told_all_in_the_order_of_each_room() {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = listener.local_addr().expect("an address");
    drop(listener);
    let url = format!("http://{address}/hooks?of=chat");
    let server = ready(telling(&url, &[]), None);
    let [bob] = known(&server, ["Bob"]);
    let rooms: Vec<(Uuid, Vec<u64>)> = thread::scope(|scope| {
        let talks: Vec<_> = (0..4)
            .map(|n| {
                let (server, bob) = (&server, &bob);
                scope.spawn(move || {
                    let mut client = server.connect(&User::new(&format!("Ada {n}")));
                    let room = client.direct(bob);
                    let seqs = (0..10).map(|n| client.send(room, &format!("{n}")));
                    (room, seqs.collect())
                })
            })
            .collect();
        let join = |talk: thread::ScopedJoinHandle<'_, _>| talk.join().expect("talked");
        talks.into_iter().map(join).collect()
    });
    server.wait_for_metrics("attempts that fail", |metrics| {
        metrics.sum("caffis_webhooks_out_failed_total") >= 3.0
    });
    server.wait_for_metrics("a lag", |metrics| {
        metrics.sum("caffis_webhooks_out_lag_seconds") > 0.0
    });
    let receiver = Receiver::listen(TcpListener::bind(address).expect("the same port"));
    let all = receiver.wait_for("push.required", 40);
    assert_eq!(all.len(), 40);
    let by_room = seqs_by_room(&all, &bob);
    for (room, seqs) in rooms {
        assert_eq!(by_room[&room.to_string()], seqs);
    }
}

#[test]
fn who_answers_410_is_told_nothing_more_until_an_operator_says_so() {
    let receiver = Receiver::start();
    receiver.answers(410, "");
    let url = receiver.url();
    let server = ready(telling(&url, &[]), None);
    let service = Service::new(&server);
    let [bob] = known(&server, ["Bob"]);
    let mut adas = server.connect(&User::new("Ada"));
    adas.direct(&bob);
    let state = || service.get("webhooks-out?state=waiting").is(200);
    wait_until("the end", || state()["disabled_at"].is_string());
    server.wait_for_metrics("that it is seen", |metrics| {
        metrics.sum("caffis_webhooks_out_disabled") == 1.0
    });
    let waiting = state();
    assert_eq!(waiting["webhooks"][0]["status"], 410, "{waiting}");
    assert_eq!(waiting["webhooks"][0]["type"], "room.created");
    let refused = receiver.all();
    assert_eq!(refused.len(), 1);
    receiver.answers(204, "");
    let enabled = service.post("webhooks-out/enable", &json!({"reason": "it is back"}));
    assert_eq!(enabled.is(200)["changed"], true);
    let taken = receiver.wait_for("room.created", 1);
    assert_eq!(taken[0].id, refused[0].id);
    assert_eq!(taken[0].id, waiting["webhooks"][0]["webhook_id"]);
    assert_eq!(state()["disabled_at"], Value::Null);
}

#[test]
fn a_redirect_is_not_followed_and_what_is_given_up_can_be_sent_again() {
    let (receiver, elsewhere) = (Receiver::start(), Receiver::start());
    let location = format!("location: {}\r\nretry-after: 0\r\n", elsewhere.url());
    receiver.answers(302, &location);
    let url = receiver.url();
    let settings = [("CAFFIS_WEBHOOK_OUT_ATTEMPTS", "3")];
    let server = ready(telling(&url, &settings), None);
    let service = Service::new(&server);
    let [bob] = known(&server, ["Bob"]);
    let mut adas = server.connect(&User::new("Ada"));
    adas.direct(&bob);
    let given_up = wait_for("one that is given up", || {
        let listed = service.get("webhooks-out").is(200);
        listed["webhooks"].get(0).cloned()
    });
    assert_eq!(
        (&given_up["attempts"], &given_up["status"]),
        (&json!(3), &json!(302))
    );
    assert_eq!(given_up["state"], "given_up");
    assert!(elsewhere.all().is_empty());
    let attempts = receiver.all();
    assert_eq!(attempts.len(), 3);
    receiver.answers(200, "");
    let id = given_up["webhook_id"].as_str().expect("an id");
    let replay = || {
        service
            .post(&format!("webhooks-out/{id}/replay"), &json!({}))
            .is(200)
    };
    assert_eq!(replay()["changed"], true);
    let taken = receiver.wait_for("room.created", 1);
    assert_eq!((&*taken[0].id, &taken[0].body), (id, &attempts[0].body));
    let delivered = || service.get("webhooks-out?state=delivered").is(200);
    wait_until("it is noted", || {
        delivered()["webhooks"][0]["webhook_id"] == id
    });
    // Also once it was delivered, and nobody else is.
    assert_eq!(replay()["changed"], true);
    wait_until("it once more", || receiver.all().len() == 5);
    let none = format!("webhooks-out/msg_{}/replay", Uuid::new_v4().simple());
    assert_eq!(service.post(&none, &json!({})).is(200)["changed"], false);
    service
        .post("webhooks-out/x/replay", &json!({}))
        .is_problem(404, "not_found");
}

#[test]
fn a_private_address_is_not_told() {
    let receiver = Receiver::start();
    let port = receiver.address.port();
    // By a name as well as by an address.
    for host in ["127.0.0.1", "localhost", "[::ffff:127.0.0.1]"] {
        let url = format!("http://{host}:{port}/hooks?of=chat");
        let settings = [
            ("CAFFIS_WEBHOOK_ALLOW_CIDRS", "none"),
            ("CAFFIS_WEBHOOK_OUT_ATTEMPTS", "2"),
        ];
        let server = ready(telling(&url, &settings), None);
        let [bob] = known(&server, ["Bob"]);
        server.connect(&User::new("Ada")).direct(&bob);
        let service = Service::new(&server);
        let given_up = wait_for("one that is given up", || {
            let listed = service.get("webhooks-out").is(200);
            listed["webhooks"].get(0).cloned()
        });
        let error = given_up["error"].as_str().expect("why");
        assert!(error.contains("private"), "{error}");
        assert_eq!(given_up["status"], Value::Null);
    }
    assert!(receiver.all().is_empty());
}

#[test]
fn of_two_nodes_one_tells_and_the_other_goes_on_when_it_is_killed() {
    let (postgres, redis, receiver) =
        (PostgresServer::start(""), Redis::start(), Receiver::start());
    let database = postgres.database();
    let (database_url, redis_url, url) = (postgres.url(&database), redis.url(), receiver.url());
    let node = |name: &'static str| {
        let settings = [
            ("CAFFIS_DATABASE_URL", &*database_url),
            ("CAFFIS_REDIS_URL", &*redis_url),
            ("CAFFIS_NODE", name),
        ];
        let mut server = telling(&url, &settings).anywhere();
        server.expect_log("told later");
        server
    };
    let mut nodes = vec![node("a"), node("b")];
    let holds = |server: &Server| server.metrics().sum("caffis_webhooks_out_holds") == 1.0;
    wait_until("the work is somebody's", || nodes.iter().any(holds));
    assert!(!nodes.iter().all(holds), "one at a time");
    let worker = nodes.iter().position(holds).expect("one has it");
    let killed = nodes.remove(worker);
    let other = &nodes[0];
    let [carol] = known(other, ["Carol"]);
    // Bob is connected to the node that does not do the work.
    let (ada, bob) = (User::new("Ada"), User::new("Bob"));
    let (mut adas, mut bobs) = (other.connect(&ada), other.connect(&bob));
    let room = adas.group(&[&bob, &carol]);
    let mut seqs: Vec<u64> = (0..3).map(|n| adas.send(room, &format!("{n}"))).collect();
    bobs.wait_for_seq(room, seqs[2]);
    let all = receiver.wait_for("push.required", 3);
    assert!(pushes_of(&all, &bob).is_empty(), "connected elsewhere");
    receiver.hangs();
    seqs.extend((3..8).map(|n| adas.send(room, &format!("{n}"))));
    wait_until("one under way", || {
        receiver.all().iter().any(|got| got.status == 0)
    });
    killed.kill();
    receiver.answers(200, "");
    seqs.push(adas.send(room, "and one after the end"));
    let all = receiver.wait_for("push.required", seqs.len());
    assert!(holds(other));
    assert_eq!(all.len(), seqs.len(), "{all:?}");
    assert_eq!(seqs_by_room(&all, &carol)[&room.to_string()], seqs);
}
