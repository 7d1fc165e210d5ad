//! A room that another holds in the database: those who write there wait, and nobody else does.

use crate::postgres::PostgresServer;
use crate::support::User;
use crate::support::client::message;
use crate::support::server::{self, NO_LIMIT};
use crate::support::wait::wait_for;
use uuid::Uuid;

#[test]
fn a_room_that_is_held_delays_no_other_room_of_its_shard() {
    let postgres = PostgresServer::start("");
    let database = postgres.database();
    let url = postgres.url(&database);
    let mut settings = NO_LIMIT.to_vec();
    settings.extend([
        ("CAFFIS_DATABASE_URL", url.as_str()),
        ("CAFFIS_SHARDS", "1"),
    ]);
    let mut server = server::start(&settings).anywhere();
    // Said only where the machine stands still for as long as the lock may be waited for.
    server.expect_log("the database did not answer in time");
    server.expect_log("commit is tried again");
    let [ada, bob, cleo] = ["Ada", "Bob", "Cleo"].map(User::new);
    let mut client = server.connect(&ada);
    drop([server.connect(&bob), server.connect(&cleo)]);
    let (hot, cold) = (client.direct(&bob), client.direct(&cleo));

    let lock = format!("SELECT FROM chat_rooms WHERE room_id = '{hot}' FOR NO KEY UPDATE");
    let held = postgres.hold(&database, &lock);
    let ids: Vec<Uuid> = (0..20).map(|_| Uuid::now_v7()).collect();
    let mut asked = Vec::new();
    for (n, id) in ids.iter().enumerate() {
        asked.push(client.tell("message.send", &message(hot, *id, &format!("hot {n}"))));
        client.send(cold, &format!("cold {n}"));
    }
    let answered = asked.iter().filter(|id| client.is_replied(**id)).count();
    assert_eq!(answered, 0, "of a room that is held");
    held.end("COMMIT");

    let mut order = Vec::new();
    for (n, (asked, id)) in asked.into_iter().zip(&ids).enumerate() {
        let text = format!("hot {n}");
        // Whoever stood still for seconds is put off, and sends again.
        let mut reply = client.reply(asked);
        if reply["type"] != "ack" {
            reply = wait_for("the store", || {
                let reply = client.ask("message.send", &message(hot, *id, &text));
                (reply["type"] == "ack").then_some(reply)
            });
        }
        order.push(reply["data"]["seq"].as_u64().expect("a seq"));
    }
    assert!(order.is_sorted(), "{order:?}");
    let found = client.history_after(hot, 0);
    let found: Vec<&str> = found
        .iter()
        .filter_map(|message| message["text"].as_str())
        .collect();
    let sent: Vec<String> = (0..20).map(|n| format!("hot {n}")).collect();
    assert_eq!(found, sent);
    server.wait_for_metrics("held writes", |metrics| {
        metrics.sum("caffis_writes_held_total") > 0.0
    });
}
