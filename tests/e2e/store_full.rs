//! A disk that is full: nothing is acknowledged that is not stored, nobody is thrown out, what is
//! there can be read, and with room again everything goes on.

use crate::support::client::{code_of, message};
use crate::support::socket::Socket;
use crate::support::wait::wait_for;
use crate::support::{Client, Server, User};
use serde_json::json;
use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::process::Command;
use tempfile::TempDir;
use uuid::Uuid;

/// A small disk of its own, in memory. It takes root to make one.
struct Disk {
    folder: TempDir,
}

impl Disk {
    fn new(bytes: usize) -> Disk {
        let folder = tempfile::tempdir().expect("a folder");
        let mount = Command::new("mount")
            .args(["-t", "tmpfs", "-o", &format!("size={bytes}"), "tmpfs"])
            .arg(folder.path())
            .status();
        assert!(mount.expect("mount runs").success(), "mounting takes root");
        Disk { folder }
    }

    fn path(&self) -> &Path {
        self.folder.path()
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        let unmount = Command::new("umount")
            .arg("--lazy")
            .arg(self.path())
            .status();
        assert!(unmount.expect("umount runs").success());
    }
}

#[test]
fn a_full_disk_refuses_sends_and_keeps_everything_else() {
    let disk = Disk::new(8 << 20);
    let ballast = disk.path().join("ballast");
    fs::write(&ballast, vec![1; 4 << 20]).expect("there is room");
    let mut server = Server::unlimited_in(disk.path());
    // Said once for every batch that fails; a person must look.
    server.expect_log("commit failed");
    server.expect_log("messages were not indexed");
    let (ada, bob) = (User::new("Ada"), User::new("Bob"));
    let mut sender = server.connect_on(0, &ada);
    let mut reader = server.connect_on(1, &bob);
    let room = sender.direct(&bob);
    // Acknowledged and refused, by id.
    let mut acked: BTreeMap<Uuid, u64> = BTreeMap::new();
    let mut refused: Vec<Uuid> = Vec::new();
    let text = "😀".repeat(4_000);
    while refused.len() < 10 {
        assert!(acked.len() < 1_000, "a disk of 8 MB took 16 MB");
        let id = Uuid::now_v7();
        let reply = sender.ask("message.send", &message(room, id, &text));
        if let Some(seq) = reply["data"]["seq"].as_u64() {
            acked.insert(id, seq);
            reader.wait_for_seq(room, seq);
        } else {
            assert_eq!(code_of(&reply), "unavailable");
            refused.push(id);
        }
        sender.take_events();
    }
    assert!(acked.len() > 20, "{}", acked.len());
    let last_seq = *acked.values().max().expect("some were sent");

    // Everybody is still there and can read, and those who are known can come.
    for client in [&mut sender, &mut reader, &mut server.connect(&bob)] {
        let got = client.ack("room.get", &json!({"room_id": room}));
        assert!(got["room"]["last_seq"].as_u64() >= Some(last_seq), "{got}");
        assert!(client.history_after(room, 0).len() > acked.len());
        assert_eq!(
            client.ack("rooms.list", &json!({}))["rooms"][0]["room_id"],
            room.to_string()
        );
    }
    reader.wait_for_seq(room, last_seq);
    // Whoever is new must be written down. What little that takes there may be room for; if not,
    // they are told to come back.
    let new = User::new("Eve");
    let mut client = Client::new(Socket::open(server.address), &new);
    let id = client.tell_auth(&new.token(), None);
    let reply = client.reply(id);
    if reply["type"] == "error" {
        assert_eq!(code_of(&reply), "unavailable");
        client.closed_with(4100);
        assert_eq!(client.event()["type"], "server.closing");
    }

    // With room again all of it goes on, and what was refused is sent by its own name.
    fs::remove_file(&ballast).expect("it is there");
    for id in refused {
        let data = message(room, id, &text);
        let sent = wait_for("the store", || {
            let reply = sender.ask("message.send", &data);
            (reply["type"] == "ack").then_some(reply)
        });
        acked.insert(id, sent["data"]["seq"].as_u64().expect("a seq"));
    }
    let last_seq = *acked.values().max().expect("some were sent");
    reader.wait_for_seq(room, last_seq);
    server.connect(&new).round_trip();
    is_whole(&mut reader, room, &acked);

    // Also from the disk itself.
    server.kill();
    let server = Server::unlimited_in(disk.path());
    let mut reader = server.connect(&bob);
    is_whole(&mut reader, room, &acked);
    let seq = server.connect(&ada).send(room, "The next one.");
    reader.wait_for_seq(room, seq);
}

/// Everything acknowledged is there, under its `seq`, once, and there is no hole.
fn is_whole(client: &mut Client, room: Uuid, acked: &BTreeMap<Uuid, u64>) {
    let history = client.history_after(room, 0);
    let mut found: BTreeMap<Uuid, u64> = BTreeMap::new();
    for (message, seq) in history.iter().zip(1..) {
        assert_eq!(message["seq"], seq, "a hole");
        if let Some(id) = message["client_msg_id"].as_str() {
            let again = found.insert(Uuid::parse_str(id).expect("an id"), seq);
            assert_eq!(again, None, "stored twice");
        }
    }
    assert_eq!(found, *acked);
}
