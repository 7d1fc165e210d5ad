//! What the embedded store promises of its file: who may open it, and what it does when the disk or
//! the data fails.

use crate::erase::erase;
use crate::harness::*;
use crate::intake::{take, webhook};
use crate::search::{found, settle};
use caffis_chat::chat::port::{MessageChange, Op, Store, StoreAnswer, StoreCall, StoreError};
use caffis_chat::protocol::view::Role;
use caffis_chat::protocol::webhook::WebhookSource;
use caffis_chat::protocol::{ErrorCode, UnixMs};
use caffis_chat::store::sqlite::{Db, DbOptions, OpenError, SqliteOptions, SqliteStore};
use rusqlite::Connection;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;

fn open(folder: &Path) -> Result<Arc<dyn Store>, OpenError> {
    let store = SqliteStore::open(folder, SqliteOptions::default())?;
    Ok(Arc::new(store))
}

fn database(folder: &Path) -> PathBuf {
    folder.join("chat.db")
}

#[test]
fn a_second_process_is_refused_while_the_folder_is_open() {
    let mut backend = Backend::sqlite();
    let refused = open(backend.folder()).err().expect("refused");
    assert!(matches!(refused, OpenError::InUse(_)), "{refused}");
    assert!(refused.to_string().contains("in use by another process"));
    // Another process indeed: flock(1) cannot take the lock either, until the store has ended.
    let lock = backend.folder().join("chat.lock");
    let taken = |lock: &Path| {
        let flock = Command::new("flock")
            .arg("-n")
            .arg(lock)
            .arg("true")
            .status();
        !flock.expect("flock(1) of util-linux").success()
    };
    assert!(taken(&lock));
    backend.close();
    assert!(!taken(&lock));
    backend.reopen();
}

/// A child has a copy of every open file between fork and exec. Such a copy must not hold the folder.
#[test]
fn a_folder_is_free_when_its_store_has_ended_whatever_else_the_process_starts() {
    let folder = tempfile::tempdir().expect("a folder");
    let (stop, stopped) = std::sync::mpsc::channel::<()>();
    std::thread::scope(|scope| {
        scope.spawn(move || {
            while stopped.try_recv() == Err(std::sync::mpsc::TryRecvError::Empty) {
                let status = Command::new("true").status();
                assert!(status.expect("true(1)").success());
            }
        });
        let opened: Vec<_> = (0..200).map(|_| open(folder.path()).map(drop)).collect();
        drop(stop);
        let refused = opened.iter().filter(|opened| opened.is_err()).count();
        assert_eq!(refused, 0, "of {}", opened.len());
    });
}

#[test]
fn a_database_of_a_newer_version_is_refused_and_left_alone() {
    let mut backend = Backend::sqlite();
    backend.close();
    let path = database(backend.folder());
    let direct = Connection::open(&path).expect("the file");
    direct
        .execute_batch("INSERT INTO schema_migrations VALUES (99, x'00')")
        .expect("a version of the future");
    drop(direct);
    let before = std::fs::read(&path).expect("the file");
    let refused = open(backend.folder()).err().expect("refused");
    assert!(
        matches!(refused, OpenError::Newer { found: 99, .. }),
        "{refused}"
    );
    assert_eq!(std::fs::read(&path).expect("the file"), before);
}

#[test]
fn a_database_with_another_history_of_migrations_is_refused() {
    let mut backend = Backend::sqlite();
    backend.close();
    let direct = Connection::open(database(backend.folder())).expect("the file");
    direct
        .execute_batch("UPDATE schema_migrations SET checksum = x'00' WHERE version = 1")
        .expect("another migration");
    drop(direct);
    let refused = open(backend.folder()).err().expect("refused");
    assert!(
        matches!(refused, OpenError::MigrationDiffers(1)),
        "{refused}"
    );
}

#[test]
fn a_file_of_somebody_else_is_refused_and_left_alone() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = database(folder.path());
    let direct = Connection::open(&path).expect("the file");
    direct
        .execute_batch("CREATE TABLE theirs (x)")
        .expect("a table");
    drop(direct);
    let before = std::fs::read(&path).expect("the file");
    let refused = open(folder.path()).err().expect("refused");
    assert!(matches!(refused, OpenError::Foreign), "{refused}");
    assert_eq!(std::fs::read(&path).expect("the file"), before);
    std::fs::write(&path, "not a database at all, but a text of some length").expect("written");
    let refused = open(folder.path()).err().expect("refused");
    assert!(matches!(refused, OpenError::Io(_)), "{refused}");
}

/// Fails the insert of one text, as no client can.
fn poison(folder: &Path) {
    let direct = Connection::open(database(folder)).expect("the file");
    direct
        .execute_batch(
            "CREATE TRIGGER poison BEFORE INSERT ON messages WHEN NEW.text = 'poison'
             BEGIN SELECT RAISE(ABORT, 'poisoned'); END",
        )
        .expect("a trigger");
}

#[test]
fn a_write_that_fails_alone_takes_no_other_with_it() {
    let backend = Backend::sqlite();
    backend.users(1);
    let room = group_id(1, 1);
    backend.done(create_group(1, 1, []));
    poison(backend.folder());
    let ops: Vec<Op> = (0..100)
        .map(|id| {
            let text = if id % 37 == 5 { "poison" } else { "hello" };
            send(room, 1, id, text)
        })
        .collect();
    let mut next = 2;
    for (id, outcome) in backend.commit(ops).into_iter().enumerate() {
        if id % 37 == 5 {
            let refusal = outcome.expect_err("refused");
            assert_eq!(refusal.code, ErrorCode::Internal);
        } else {
            assert_eq!(sent(&outcome.expect("stands")), (next, false));
            next += 1;
        }
    }
    assert_eq!(backend.last_seq(room), next - 1);
}

/// A small disk of its own. Needs root, and fails without it.
struct SmallDisk(tempfile::TempDir);

impl SmallDisk {
    fn new(bytes: u64) -> SmallDisk {
        let folder = tempfile::tempdir().expect("a folder");
        let mounted = Command::new("mount")
            .args(["-t", "tmpfs", "-o", &format!("size={bytes}"), "tmpfs"])
            .arg(folder.path())
            .status();
        assert!(
            mounted.expect("mount(8)").success(),
            "the test of a full disk mounts a small one, for which it needs root"
        );
        SmallDisk(folder)
    }

    /// Takes all that is left, and says with what.
    fn fill(&self) -> PathBuf {
        use std::io::Write;
        let path = self.0.path().join("filler");
        let mut filler = std::fs::File::create(&path).expect("a file");
        while filler.write_all(&[1; 4_096]).is_ok() {}
        path
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let unmounted = Command::new("umount").arg("-l").arg(self.0.path()).status();
        assert!(
            unmounted.expect("umount(8)").success(),
            "the small disk stays"
        );
    }
}

#[test]
fn a_full_disk_is_unavailable_and_then_works_again_and_readers_never_notice() {
    let disk = SmallDisk::new(8 << 20);
    let store = open(disk.0.path()).expect("the store opens");
    let call = |call| ask(&store, call);
    let room = group_id(1, 1);
    call(StoreCall::SignIn(vec![sign_in(1, Some("Ada"))])).expect("signed in");
    call(StoreCall::Commit(vec![create_group(1, 1, [])])).expect("created");
    let last_seq = || {
        let heads = StoreCall::Heads {
            rooms: vec![room],
            users: Vec::new(),
        };
        match ask(&store, heads) {
            Ok(StoreAnswer::Heads { rooms, .. }) => rooms[0].1,
            other => panic!("a reader noticed: {other:?}"),
        }
    };
    let text = "a message that takes some room ".repeat(60);
    let mut acknowledged = Vec::new();
    for round in 0..3u128 {
        let filler = disk.fill();
        let mut failures = 0;
        for n in 0..400u128 {
            let id = round * 1_000 + n;
            match call(StoreCall::Commit(vec![send(room, 1, id, &text)])) {
                Ok(StoreAnswer::Commit(outcomes)) => {
                    acknowledged.push((id, sent(outcomes[0].as_ref().expect("stands")).0));
                }
                Err(StoreError::Unavailable(_)) => {
                    failures += 1;
                    assert!(last_seq() >= 1);
                    // A known user signs in without a write, a new one cannot.
                    call(StoreCall::SignIn(vec![sign_in(1, Some("Ada"))])).expect("signed in");
                    let new = call(StoreCall::SignIn(vec![sign_in(2 + round, None)]));
                    assert!(matches!(new, Err(StoreError::Unavailable(_))), "{new:?}");
                }
                other => panic!("{other:?}"),
            }
            if failures == 20 {
                break;
            }
        }
        assert_eq!(failures, 20, "the disk was full");
        std::fs::remove_file(filler).expect("space is back");
        let again = call(StoreCall::Commit(vec![send(room, 1, 900 + round, "after")]));
        let Ok(StoreAnswer::Commit(outcomes)) = again else {
            panic!("the store did not come back: {again:?}");
        };
        acknowledged.push((900 + round, sent(outcomes[0].as_ref().expect("stands")).0));
    }
    // What was acknowledged stands, also after a restart, each with its seq.
    drop(store);
    let store = open(disk.0.path()).expect("the store opens");
    for (id, seq) in acknowledged {
        let body = if (900..1_000).contains(&id) {
            "after"
        } else {
            &text
        };
        let again = ask(&store, StoreCall::Commit(vec![send(room, 1, id, body)]));
        let Ok(StoreAnswer::Commit(outcomes)) = again else {
            panic!("{again:?}");
        };
        assert_eq!(sent(outcomes[0].as_ref().expect("stands")), (seq, true));
    }
}

/// No write makes an admin yet, so one is made in the file.
fn promote(backend: &Backend, n: u128) {
    let direct = Connection::open(database(backend.folder())).expect("the file");
    let changed = direct.execute(
        "UPDATE room_participants SET role = 'admin' WHERE user_id = ?1",
        [user(n).0.as_bytes()],
    );
    assert_eq!(changed.expect("an update"), 1);
}

#[test]
fn an_admin_adds_anybody_removes_plain_members_and_succeeds_first() {
    let backend = Backend::sqlite();
    backend.users(6);
    let room = group_id(1, 1);
    backend.done(create_group(1, 1, [2, 3]));
    backend.done(add(room, 1, [4]));
    backend.done(add(room, 1, [5]));
    promote(&backend, 4);
    promote(&backend, 5);
    backend.done(add(room, 4, [6]));
    for whom in [1, 5] {
        assert_eq!(
            backend.refused(remove(room, 4, [whom])),
            ErrorCode::Forbidden
        );
        // All or none.
        assert_eq!(
            backend.refused(remove(room, 4, [2, whom])),
            ErrorCode::Forbidden
        );
    }
    assert_eq!(backend.role(room, 2), Some(Role::Member));
    assert!(changed(&backend.done(remove(room, 4, [2]))).is_some());
    // 3 has served for longer, but is no admin; of the admins 4 has.
    backend.done(leave(room, 1));
    assert_eq!(backend.role(room, 4), Some(Role::Owner));
    assert_eq!(backend.role(room, 3), Some(Role::Member));
    assert!(changed(&backend.done(remove(room, 4, [5]))).is_some());
}

/// No write changes a message yet, so they are changed in the file, as an edit will.
#[test]
fn a_page_after_a_seq_has_what_was_created_or_changed_since() {
    use caffis_chat::chat::port::{HistoryPage, HistoryRead};
    let backend = Backend::sqlite();
    backend.users(1);
    let room = group_id(1, 1);
    backend.done(create_group(1, 1, []));
    let sends = (2..=20).map(|id| send(room, 1, id, "hello"));
    backend.commit(sends.collect());
    let direct = Connection::open(database(backend.folder())).expect("the file");
    // Message 3 was changed by event 5, 12 by 14, 4 by 18: those events made no message.
    for (seq, changed_seq) in [(3, 5), (12, 14), (4, 18)] {
        direct
            .execute("DELETE FROM messages WHERE seq = ?1", [changed_seq])
            .expect("a delete");
        direct
            .execute(
                "UPDATE messages SET changed_seq = ?2, revision = 2 WHERE seq = ?1",
                [seq, changed_seq],
            )
            .expect("an update");
    }
    let mut by_change: Vec<(u64, u64)> = (1..=20)
        .filter(|seq| ![3, 12, 4, 5, 14, 18].contains(seq))
        .map(|seq| (seq, seq))
        .chain([(5, 3), (14, 12), (18, 4)])
        .collect();
    by_change.sort_unstable();
    for after in 0..=21 {
        for limit in 1..=21 {
            let answer = backend.call(StoreCall::History(HistoryRead {
                room,
                user: user(1),
                page: HistoryPage::After(after),
                limit,
                bytes_max: 1 << 20,
            }));
            let StoreAnswer::History(Ok(page)) = answer else {
                panic!("not a page");
            };
            let wanted = by_change.iter().filter(|(changed, _)| *changed > after);
            let wanted: Vec<(u64, u64)> = wanted.copied().collect();
            let taken = limit.min(wanted.len());
            let found = page.messages.iter().map(|m| (m.changed_seq, m.seq));
            assert!(found.eq(wanted[..taken].iter().copied()), "after {after}");
            assert_eq!(page.has_more, taken < wanted.len());
            let next = if page.has_more {
                wanted[taken - 1].0
            } else {
                20
            };
            assert_eq!(page.next_after_seq, Some(next));
        }
    }
}

#[test]
fn the_same_calls_on_a_database_in_memory_give_the_same_answers() {
    let run = || {
        let options = DbOptions {
            epoch: Some(caffis_chat::protocol::Epoch(7)),
            hash_key: Some([7; 32]),
            ..DbOptions::default()
        };
        let mut db = Db::in_memory(&options).expect("a database");
        let mut answers = Vec::new();
        for (ms, call) in [
            StoreCall::SignIn((1..=4).map(|n| sign_in(n, Some("name"))).collect()),
            StoreCall::Commit(vec![
                create_group(1, 1, [2, 3]),
                send(group_id(1, 1), 2, 1, "hello"),
                send(group_id(1, 1), 2, 1, "hello"),
                add(group_id(1, 1), 1, [4]),
            ]),
            StoreCall::SignIn(vec![sign_in(2, None)]),
            StoreCall::OpenRooms(vec![group_id(1, 1)]),
        ]
        .iter()
        .enumerate()
        {
            answers.push(format!("{:?}", db.call(UnixMs(ms as u64), call)));
        }
        assert_eq!(db.epoch().0, 7);
        answers
    };
    assert_eq!(run(), run());
}

/// Faults put in on purpose: each must do what it says, or the proofs that catch it prove nothing.
#[cfg(feature = "sabotage")]
mod sabotage {
    use super::*;
    use caffis_chat::chat::sabotage::{Sabotage, Sabotaged};

    fn open(folder: &Path, sabotage: Sabotage) -> Arc<dyn Store> {
        let mut options = SqliteOptions::default();
        options.db.sabotage = Sabotaged::with(sabotage);
        Arc::new(SqliteStore::open(folder, options).expect("the store opens"))
    }

    fn commit(store: &Arc<dyn Store>, op: Op) -> (u64, bool) {
        match ask(store, StoreCall::Commit(vec![op])) {
            Ok(StoreAnswer::Commit(outcomes)) => sent(outcomes[0].as_ref().expect("stands")),
            other => panic!("{other:?}"),
        }
    }

    fn with_a_room(sabotage: Sabotage) -> (Arc<dyn Store>, tempfile::TempDir) {
        let folder = tempfile::tempdir().expect("a folder");
        let store = open(folder.path(), sabotage);
        ask(&store, StoreCall::SignIn(vec![sign_in(1, Some("Ada"))])).expect("signed in");
        ask(&store, StoreCall::Commit(vec![create_group(1, 1, [])])).expect("created");
        (store, folder)
    }

    #[test]
    fn duplicate_not_detected_stores_a_retry_again() {
        let (store, _folder) = with_a_room(Sabotage::DuplicateNotDetected);
        for seq in 2..=4 {
            assert_eq!(
                commit(&store, send(group_id(1, 1), 1, 9, "hello")),
                (seq, false)
            );
        }
    }

    #[test]
    fn seq_reused_gives_the_last_seq_again_once_after_a_restart() {
        let (store, folder) = with_a_room(Sabotage::SeqReused);
        let room = group_id(1, 1);
        assert_eq!(commit(&store, send(room, 1, 1, "one")), (2, false));
        assert_eq!(commit(&store, send(room, 1, 2, "two")), (3, false));
        drop(store);
        let store = open(folder.path(), Sabotage::SeqReused);
        assert_eq!(commit(&store, send(room, 1, 1, "one")), (2, true));
        assert_eq!(commit(&store, send(room, 1, 3, "three")), (3, false));
        assert_eq!(commit(&store, send(room, 1, 4, "four")), (4, false));
    }

    #[test]
    fn synchronous_off_says_that_it_is_relaxed() {
        let (store, _folder) = with_a_room(Sabotage::SynchronousOff);
        assert_eq!(store.durability(), "relaxed");
    }
}

/// Which of these the files of a database hold.
fn held<'a>(folder: &Path, words: &[&'a str]) -> Vec<&'a str> {
    let files = std::fs::read_dir(folder).expect("the folder");
    let bytes: Vec<u8> = files
        .flat_map(|file| std::fs::read(file.expect("a file").path()).expect("read"))
        .collect();
    let held = |word: &&&str| bytes.windows(word.len()).any(|it| it == word.as_bytes());
    words.iter().filter(held).copied().collect()
}

#[test]
fn no_page_of_the_file_holds_what_an_erased_user_wrote() {
    let mut backend = Backend::sqlite();
    backend.users(2);
    let room = group_id(1, 1);
    backend.done(create_group(1, 1, [2]));
    // Of the row, of the index, of a page that only a long text needs, and of what is edited before.
    let mut words = vec!["xylophone", "zymurgy", "quokka", "wombat"];
    // Of texts of several pages, each of which is another by then or no longer there; of webhooks that came and go.
    words.extend(["kookaburra", "echidna", "numbat", "platypus"]);
    let filler = "filler ".repeat(4_000);
    let long = format!("{filler} quokka");
    let (seq, _) = sent(&backend.done(send(room, 1, 1, "a wombat")));
    backend.done(send(room, 1, 2, "a xylophone and zymurgy"));
    backend.done(send(room, 1, 3, &long));
    let edited = sent(&backend.done(send(room, 1, 4, &format!("{filler} kookaburra")))).0;
    backend.done(edit(room, 1, edited, "short"));
    let deleted = sent(&backend.done(send(room, 1, 5, &format!("{filler} echidna")))).0;
    backend.done(delete(room, 1, deleted));
    let of_theirs = format!("{{\"user_id\":\"{}\",\"text\":\"{filler}", user(1));
    let came = webhook(WebhookSource::Map, "w1", &format!("{of_theirs} numbat\"}}"));
    take(&backend, &came);
    let goes = format!("{of_theirs} platypus\"}}");
    let direct = Connection::open(database(backend.folder())).expect("the file");
    let put = direct.execute(
        "INSERT INTO hook_outbox (webhook_id, type, room_id, user_id, seq, created_at, data)
         VALUES (?1, 'push.required', ?1, ?1, 1, 1, ?2)",
        rusqlite::params![[7_u8; 16], goes],
    );
    assert_eq!(put.expect("it waits"), 1);
    drop(direct);
    // Of somebody else, in the same pages, enough for several segments of the index.
    for some in 0..30 {
        let ids = some * 100..(some + 1) * 100;
        let sends = ids.map(|id| send(room, 2, 10 + id, &format!("word{id} of another")));
        backend.commit(sends.collect());
    }
    settle(&backend, room, 2, 9_000);
    backend.done(change(
        room,
        1,
        seq,
        MessageChange::Edit {
            text: "no animal".to_owned(),
            expected_revision: None,
        },
    ));
    settle(&backend, room, 2, 9_001);
    let before = held(backend.folder(), &words);
    assert!(
        ["xylophone", "quokka", "numbat", "platypus"]
            .iter()
            .all(|word| before.contains(word)),
        "{before:?}"
    );

    backend.reopen();
    erase(&backend, 1);
    // What is merged is read from the files of an open store: the log as well.
    wait_gone(|| held(backend.folder(), &words));
    backend.reopen();
    for word in ["word0", "word2999"] {
        assert_eq!(
            found(&backend, 2, &format!("\"{word}\"")).len(),
            1,
            "{word}"
        );
    }
}
