//! Coming back: everything missed is replayed in order before anything live, or the client is told
//! plainly what to reload.

use crate::postgres::PostgresServer;
use crate::support::client::{message, uuid};
use crate::support::follower::Follower;
use crate::support::server;
use crate::support::socket::Socket;
use crate::support::wait::wait_for;
use crate::support::{Client, Server, User};
use serde_json::{Value, json};
use std::time::{SystemTime, UNIX_EPOCH};
use uuid::Uuid;

fn resume(server: &Server, user: &User, epoch: &str, rooms: Value) -> Client {
    let resume = json!({"epoch": epoch, "rooms": rooms});
    Client::sign_in(Socket::open(server.address), user, Some(resume))
}

fn epoch_of(client: &Client) -> String {
    client.ready["epoch"].as_str().expect("an epoch").to_owned()
}

/// What `ready` says of a room.
fn standing(client: &Client, room: Uuid) -> Value {
    let rooms = client.ready["rooms"].as_array().expect("rooms");
    let is_it = |standing: &&Value| standing["room_id"] == room.to_string();
    rooms.iter().find(is_it).expect("it is told").clone()
}

/// A server, a member who writes, another one who is not connected, and their rooms.
fn room_of_two(server: &Server) -> (Client, User, Uuid) {
    let (ada, bob) = (User::new("Ada"), User::new("Bob"));
    drop(server.connect(&bob));
    let mut writer = server.connect(&ada);
    let room = writer.direct(&bob);
    (writer, bob, room)
}

fn send_many(client: &mut Client, room: Uuid, count: u64) -> u64 {
    let asked: Vec<u64> = (0..count)
        .map(|n| {
            client.tell(
                "message.send",
                &message(room, Uuid::now_v7(), &n.to_string()),
            )
        })
        .collect();
    let seqs: Vec<u64> = (asked.into_iter())
        .map(|id| client.reply(id)["data"]["seq"].as_u64().expect("a seq"))
        .collect();
    *seqs.last().expect("some were sent")
}

#[test]
fn what_was_missed_is_replayed_exactly() {
    let server = Server::unlimited();
    let (mut writer, bob, room) = room_of_two(&server);
    let last_seq = send_many(&mut writer, room, 20);
    writer.wait_for_seq(room, last_seq);
    let epoch = epoch_of(&writer);
    let live: Vec<Value> = (writer.take_events().into_iter())
        .filter(|event| event.get("seq").is_some())
        .collect();
    for position in [1, 2, 7, 20] {
        let mut reader = resume(&server, &bob, &epoch, json!({room.to_string(): position}));
        let told = standing(&reader, room);
        assert_eq!(
            (&told["kind"], &told["last_seq"]),
            (&json!("direct"), &json!(last_seq))
        );
        assert_eq!(told["recovered"], true, "{told}");
        assert_eq!(told.get("reason"), None);
        assert_eq!(
            (&told["from_seq"], &told["to_seq"]),
            (&json!(position + 1), &json!(last_seq))
        );
        assert_eq!(
            (&told["read_seq"], &told["unread"]),
            (&json!(1), &json!(20))
        );
        assert_eq!(
            told["watermarks"].as_array().expect("a small room").len(),
            2
        );
        reader.wait_for_seq(room, last_seq);
        // To the letter what was told live.
        assert_eq!(reader.take_events(), live[position as usize - 1..]);
    }
    // From the very beginning, with the event that opened the room.
    let mut reader = resume(&server, &bob, &epoch, json!({room.to_string(): 0}));
    reader.wait_for_seq(room, last_seq);
    let events = reader.take_events();
    assert_eq!(
        (&events[0]["type"], &events[0]["seq"]),
        (&json!("room.created"), &json!(1))
    );
    assert_eq!(events[1..], live[..]);
    // At the newest event there is nothing to replay.
    let mut reader = resume(&server, &bob, &epoch, json!({room.to_string(): last_seq}));
    let told = standing(&reader, room);
    assert_eq!(
        (&told["recovered"], &told["last_seq"]),
        (&json!(true), &json!(last_seq))
    );
    reader.round_trip();
    assert_eq!(reader.take_events(), Vec::<Value>::new());
    let seq = writer.send(room, "And now live.");
    assert_eq!(reader.message(room)["seq"], seq);
}

#[test]
fn without_a_position_nothing_is_replayed() {
    let server = Server::unlimited();
    let (mut writer, bob, room) = room_of_two(&server);
    let last_seq = send_many(&mut writer, room, 5);
    let other = writer.group(&[&bob]);
    let epoch = epoch_of(&writer);
    let plain = server.connect(&bob);
    let elsewhere = resume(&server, &bob, &epoch, json!({other.to_string(): 1}));
    let mut readers = [plain, elsewhere];
    for reader in &mut readers {
        let told = standing(reader, room);
        let expected = (&json!(false), &json!("not_requested"), &json!(last_seq));
        assert_eq!(
            (&told["recovered"], &told["reason"], &told["last_seq"]),
            expected
        );
        reader.round_trip();
        assert_eq!(reader.take_events(), Vec::<Value>::new());
    }
    // Live events go on after what `ready` told.
    let seq = writer.send(room, "Live.");
    for reader in &mut readers {
        assert_eq!(reader.message(room)["seq"], seq);
    }
}

/// Waits until the clock shows another time: activity is compared in ms.
fn next_millisecond() {
    let ms = || {
        let since = SystemTime::now().duration_since(UNIX_EPOCH);
        since.expect("after 1970").as_millis()
    };
    let begun = ms();
    while ms() == begun {
        std::hint::spin_loop();
    }
}

#[test]
fn rooms_of_resume_are_told_first_then_the_others_by_activity() {
    let server = Server::unlimited();
    let (mut writer, bob, first) = room_of_two(&server);
    let rooms: Vec<Uuid> = (0..4).map(|_| writer.group(&[&bob])).collect();
    for room in &rooms {
        next_millisecond();
        writer.send(*room, "Activity.");
    }
    let epoch = epoch_of(&writer);
    let reader = resume(&server, &bob, &epoch, json!({first.to_string(): 1}));
    let told: Vec<Uuid> = (reader.ready["rooms"].as_array().expect("rooms").iter())
        .map(|room| uuid(&room["room_id"]))
        .collect();
    let expected = [first, rooms[3], rooms[2], rooms[1], rooms[0]];
    assert_eq!(told, expected);
}

#[test]
fn too_much_to_replay_is_told_and_history_has_it() {
    let server = Server::unlimited();
    let (mut writer, bob, room) = room_of_two(&server);
    let last_seq = send_many(&mut writer, room, 400);
    let epoch = epoch_of(&writer);
    // At the limit it is replayed; one more is too much.
    for (missed, recovered) in [(300, true), (301, false)] {
        let position = last_seq - missed;
        let mut reader = resume(&server, &bob, &epoch, json!({room.to_string(): position}));
        let told = standing(&reader, room);
        assert_eq!(told["recovered"], recovered, "{told}");
        assert_eq!(told["last_seq"], last_seq);
        if recovered {
            reader.wait_for_seq(room, last_seq);
            assert_eq!(reader.take_events().len(), missed as usize);
        } else {
            assert_eq!(told["reason"], "too_much");
            assert_eq!(told.get("from_seq"), None);
            let missing = reader.history_after(room, position);
            let seqs: Vec<u64> = (missing.iter())
                .map(|message| message["seq"].as_u64().expect("a seq"))
                .collect();
            assert_eq!(seqs, (position + 1..=last_seq).collect::<Vec<u64>>());
            assert_eq!(
                reader.take_events(),
                Vec::<Value>::new(),
                "never a part of a replay"
            );
        }
    }
}

#[test]
fn more_bytes_than_a_replay_may_have_are_too_much() {
    let server = Server::unlimited();
    let (mut writer, bob, room) = room_of_two(&server);
    // 16 KB each; a room's replay may have 256 KiB.
    let text = "😀".repeat(4_000);
    let mut last_seq = 0;
    for _ in 0..20 {
        last_seq = writer.send(room, &text);
    }
    let epoch = epoch_of(&writer);
    for (missed, recovered) in [(10, true), (20, false)] {
        let rooms = json!({room.to_string(): last_seq - missed});
        let mut reader = resume(&server, &bob, &epoch, rooms);
        let told = standing(&reader, room);
        assert_eq!(told["recovered"], recovered, "{told}");
        if recovered {
            reader.wait_for_seq(room, last_seq);
        } else {
            assert_eq!(told["reason"], "too_much");
        }
    }
}

#[test]
fn positions_of_another_history_or_ahead_of_it_or_of_others_are_told_apart() {
    let server = Server::unlimited();
    let (mut writer, bob, room) = room_of_two(&server);
    let last_seq = send_many(&mut writer, room, 5);
    let foreign = writer.group(&[]);
    let unknown = Uuid::new_v4();
    let epoch = epoch_of(&writer);
    for (epoch, room, position, reason) in [
        ("another epoch", room, 1, "epoch_changed"),
        ("", room, last_seq, "epoch_changed"),
        (&epoch, room, last_seq + 1, "ahead_of_server"),
        (&epoch, room, 1 << 53, "ahead_of_server"),
        (&epoch, foreign, 1, "not_a_member"),
        (&epoch, unknown, 1, "not_a_member"),
    ] {
        let mut reader = resume(&server, &bob, epoch, json!({room.to_string(): position}));
        let told = standing(&reader, room);
        assert_eq!(
            (&told["recovered"], &told["reason"]),
            (&json!(false), &json!(reason))
        );
        assert_eq!(
            told.get("kind").is_none(),
            reason == "not_a_member",
            "{told}"
        );
        reader.round_trip();
        assert_eq!(reader.take_events(), Vec::<Value>::new());
    }
    // Those who are told so still hear what is live.
    let rooms = json!({room.to_string(): 1_u64 << 40});
    let mut reader = resume(&server, &bob, &epoch, rooms);
    let seq = writer.send(room, "Live.");
    assert_eq!(reader.message(room)["seq"], seq);
}

#[test]
fn whoever_was_removed_meanwhile_is_told_so() {
    let server = Server::new();
    let (ada, bob) = (User::new("Ada"), User::new("Bob"));
    let mut owner = server.connect(&ada);
    let mut member = server.connect(&bob);
    let room = owner.group(&[&bob]);
    member.wait_for_seq(room, 1);
    let epoch = epoch_of(&member);
    drop(member);
    let remove = json!({"room_id": room, "user_ids": [bob.id]});
    owner.ack("room.members.remove", &remove);
    let member = resume(&server, &bob, &epoch, json!({room.to_string(): 1}));
    assert_eq!(standing(&member, room)["reason"], "not_a_member");
    assert!(member.positions.is_empty());
}

#[test]
fn five_hundred_positions_are_taken_and_one_more_is_not() {
    let server = Server::unlimited();
    let (mut writer, bob, room) = room_of_two(&server);
    writer.send(room, "Hello.");
    let epoch = epoch_of(&writer);
    let mut rooms = serde_json::Map::new();
    rooms.insert(room.to_string(), json!(1));
    while rooms.len() < 500 {
        rooms.insert(Uuid::new_v4().to_string(), json!(1));
    }
    let mut reader = resume(&server, &bob, &epoch, Value::Object(rooms.clone()));
    assert_eq!(reader.ready["rooms"].as_array().expect("rooms").len(), 500);
    assert_eq!(standing(&reader, room)["recovered"], true);
    reader.wait_for_seq(room, 2);

    rooms.insert(Uuid::new_v4().to_string(), json!(1));
    let mut client = Client::new(Socket::open(server.address), &bob);
    let positions = json!({"epoch": epoch, "rooms": rooms});
    let id = client.tell_auth(&bob.token(), Some(positions));
    assert_eq!(
        crate::support::client::code_of(&client.reply(id)),
        "too_large"
    );
    client.closed_with(4008);
}

#[test]
fn live_events_wait_behind_the_replay() {
    let server = Server::unlimited();
    let (ada, bob) = (User::new("Ada"), User::new("Bob"));
    drop(server.connect(&bob));
    let mut writer = server.connect(&ada);
    let rooms: Vec<Uuid> = (0..4).map(|_| writer.group(&[&bob])).collect();
    let mut follower = Follower::new(&bob);
    drop(follower.connect(&server));
    // More than one pull of a replay has, in every room.
    let text = "x".repeat(1_800);
    for _ in 0..100 {
        for room in &rooms {
            writer.send(*room, &text);
        }
        writer.take_events();
    }
    let last_of = |writer: &mut Client| -> Vec<u64> {
        rooms
            .iter()
            .map(|room| writer.send(*room, "The last one."))
            .collect()
    };
    last_of(&mut writer);
    let mut reader = follower.connect(&server);
    // Sent while the replay is under way: the reader has read nothing of it yet.
    let last = last_of(&mut writer);
    for (room, seq) in rooms.iter().zip(last) {
        follower.catch_up(&mut reader, *room, seq);
    }
    assert_eq!((follower.recovered, follower.paged), (4, 0));
}

#[test]
fn more_than_a_connection_may_have_replayed_is_told_room_by_room() {
    let server = Server::unlimited();
    let (ada, bob) = (User::new("Ada"), User::new("Bob"));
    drop(server.connect(&bob));
    let mut writer = server.connect(&ada);
    let rooms: Vec<Uuid> = (0..9).map(|_| writer.group(&[&bob])).collect();
    let mut follower = Follower::new(&bob);
    drop(follower.connect(&server));
    // 9 × 250 events; a connection's replay may have 2,000.
    let mut last = Vec::new();
    for room in &rooms {
        last.push(send_many(&mut writer, *room, 250));
    }
    let mut reader = follower.connect(&server);
    assert_eq!((follower.recovered, follower.paged), (8, 1));
    for (room, seq) in rooms.iter().zip(last) {
        follower.catch_up(&mut reader, *room, seq);
        let seen = &follower.seen[room];
        assert_eq!((seen.len(), seen.keys().last()), (250, Some(&seq)));
    }
}

#[test]
fn five_hundred_rooms_are_described_and_of_further_ones_everything_is_heard() {
    let server = Server::unlimited();
    let ada = User::new("Ada");
    let mut writer = server.connect(&ada);
    let create = |writer: &mut Client| {
        let data = json!({
            "kind": "group", "member_ids": [], "client_room_id": Uuid::new_v4(),
        });
        writer.tell("room.create", &data)
    };
    let asked: Vec<u64> = (0..500).map(|_| create(&mut writer)).collect();
    let mut rooms: Vec<Uuid> = asked
        .into_iter()
        .map(|id| uuid(&writer.reply(id)["data"]["room"]["room_id"]))
        .collect();
    let described = |client: &Client| -> Vec<Uuid> {
        let rooms = client.ready["rooms"].as_array().expect("rooms");
        rooms.iter().map(|room| uuid(&room["room_id"])).collect()
    };
    let all = server.connect(&ada);
    assert_eq!(described(&all).len(), 500);
    assert_eq!(all.ready.get("rooms_more"), None);

    let one_more = create(&mut writer);
    rooms.push(uuid(&writer.reply(one_more)["data"]["room"]["room_id"]));
    let reader = server.connect(&ada);
    assert_eq!(reader.ready["rooms_more"], true);
    let of_reader = described(&reader);
    assert_eq!(of_reader.len(), 500);
    assert_eq!(of_reader[0], rooms[500], "by activity");
    let left_out = |told: &[Uuid]| -> Vec<Uuid> {
        let is_out = |room: &&Uuid| !told.contains(room);
        rooms.iter().filter(is_out).copied().collect()
    };
    let [oldest] = left_out(&of_reader)[..] else {
        panic!("one is left out");
    };
    // Named, it comes first, and another one is left out; of that one everything is heard too.
    let epoch = epoch_of(&writer);
    let mut named = resume(&server, &ada, &epoch, json!({oldest.to_string(): 1}));
    let of_named = described(&named);
    assert_eq!((of_named.len(), of_named[0]), (500, oldest));
    assert_eq!(named.ready["rooms_more"], true);
    let [silent] = left_out(&of_named)[..] else {
        panic!("one is left out");
    };
    named.positions.insert(silent, 1);
    writer.wait_for_seq(silent, 1);
    let seq = writer.send(silent, "Here, too.");
    named.wait_for_seq(silent, seq);
    let (mut listed, mut asked) = (Vec::new(), json!({}));
    loop {
        let page = named.ack("rooms.list", &asked);
        let rooms = page["rooms"].as_array().expect("rooms");
        listed.extend(rooms.iter().map(|room| uuid(&room["room_id"])));
        match page.get("next_cursor") {
            Some(cursor) => asked["cursor"] = cursor.clone(),
            None => break,
        }
    }
    assert_eq!(left_out(&listed), Vec::<Uuid>::new());
    assert_eq!(listed.len(), 501);
}

/// As when a backup is put back below a running node: whoever is connected is told, and then that nothing they have
/// holds any more.
#[test]
fn when_the_history_was_replaced_everybody_is_closed_4203_and_told_to_reload() {
    let postgres = PostgresServer::start("");
    let database = postgres.database();
    let url = postgres.url(&database);
    let mut settings = server::NO_LIMIT.to_vec();
    settings.push(("CAFFIS_DATABASE_URL", &url));
    let mut server = server::start(&settings).anywhere();
    for part in [
        "the database has another history",
        "no connection to the database",
        "commit is tried again",
        "read failed",
    ] {
        server.expect_log(part);
    }
    let (ada, bob) = (User::new("Ada"), User::new("Bob"));
    let (mut first, mut second) = (server.connect_on(0, &ada), server.connect_on(1, &bob));
    let room = first.group(&[&bob]);
    second.wait_for_seq(room, 1);
    let old = epoch_of(&first);
    postgres.sql(&database, "UPDATE meta SET epoch = epoch # 1");
    postgres.sql(
        &database,
        "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity
         WHERE datname = current_database() AND pid <> pg_backend_pid()",
    );
    first.closed_with(4203);
    second.closed_with(4203);
    let back = wait_for("a sign-in", || {
        let mut back = Client::new(Socket::open(server.address), &ada);
        let resume = json!({"epoch": old, "rooms": {room.to_string(): 1}});
        let id = back.tell_auth(&ada.token(), Some(resume));
        let ready = back.reply_or_end(id).ok()?;
        (ready["type"] == "ready").then_some(back)
    });
    assert_ne!(epoch_of(&back), old);
    let standing = standing(&back, room);
    assert_eq!(
        (&standing["recovered"], &standing["reason"]),
        (&json!(false), &json!("epoch_changed"))
    );
}
