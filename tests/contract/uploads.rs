//! Files: who may bring one, which message has it, once and for good, and what is removed.

use crate::harness::*;
use crate::retention::{at_day, retain};
use caffis_chat::chat::port::files::*;
use caffis_chat::chat::port::upkeep::{Upkeep, UpkeepDone};
use caffis_chat::chat::port::*;
use caffis_chat::limits;
use caffis_chat::protocol::event::RoomEventBody;
use caffis_chat::protocol::object::ObjectKey;
use caffis_chat::protocol::upload::UploadKind;
use caffis_chat::protocol::view::{Attachment, Message, MessageKind};
use caffis_chat::protocol::{ErrorCode, RoomId, Seq, UnixMs, UploadId};
use std::sync::{Arc, Barrier};
use uuid::Uuid;

const QUOTA: UploadQuota = UploadQuota {
    uploads: 100,
    bytes: 1_000_000,
};

fn call(backend: &Backend, call: UploadCall) -> UploadAnswer {
    let StoreAnswer::Uploads(answer) = backend.call(StoreCall::Uploads(Box::new(call))) else {
        panic!("not the answer to a call about files");
    };
    *answer
}

fn upload(n: u128) -> UploadId {
    UploadId(Uuid::from_u128(n))
}

fn key(n: u128) -> ObjectKey {
    ObjectKey::new(n.to_be_bytes())
}

fn create_of(
    room: RoomId,
    owner: u128,
    n: u128,
    (kind, content_type): (UploadKind, &'static str),
    quota: UploadQuota,
) -> UploadCall {
    UploadCall::Create {
        id: upload(n),
        key: key(n),
        file: NewFile {
            owner: user(owner),
            room,
            kind,
            name: format!("file {n}"),
            size: 1_000 + n as u64,
            content_type,
            sha256: Some([n as u8; 32]),
        },
        quota,
    }
}

fn create(backend: &Backend, room: RoomId, owner: u128, n: u128) -> Result<UnixMs, FilesRefusal> {
    let image = (UploadKind::Image, "image/png");
    match call(backend, create_of(room, owner, n, image, QUOTA)) {
        UploadAnswer::Created(created) => created,
        other => panic!("{other:?}"),
    }
}

fn seen(backend: &Backend, n: u128, state: UploadState) {
    let answer = call(backend, UploadCall::Seen(vec![(upload(n), state)]));
    assert_eq!(answer, UploadAnswer::Seen);
}

/// An image that a message may use.
fn brought(backend: &Backend, room: RoomId, owner: u128, n: u128) {
    create(backend, room, owner, n).expect("a ticket");
    seen(backend, n, UploadState::Checked);
}

fn named(room: RoomId, n: u128, uploads: &[u128]) -> NamedUploads {
    NamedUploads {
        room,
        user: user(n),
        uploads: uploads.iter().map(|n| upload(*n)).collect(),
    }
}

fn own(backend: &Backend, room: RoomId, n: u128, uploads: &[u128]) -> Vec<(UploadId, UploadState)> {
    let UploadAnswer::Own(found) = call(backend, UploadCall::Own(named(room, n, uploads))) else {
        panic!("not the own ones");
    };
    let mut found: Vec<_> = found.iter().map(|it| (it.id, it.state)).collect();
    found.sort_unstable_by_key(|(id, _)| *id);
    found
}

fn shown(
    backend: &Backend,
    room: RoomId,
    n: u128,
    uploads: &[u128],
) -> Result<Vec<UploadId>, Refusal> {
    let UploadAnswer::Shown(found) = call(backend, UploadCall::Shown(named(room, n, uploads)))
    else {
        panic!("not those that are shown");
    };
    let mut found: Vec<_> = found?.iter().map(|it| it.id).collect();
    found.sort_unstable();
    Ok(found)
}

fn to_remove(backend: &Backend, owner: Option<u128>) -> Vec<UploadId> {
    let owner = owner.map(user);
    let UploadAnswer::ToRemove(found) = call(backend, UploadCall::ToRemove { owner, limit: 10 })
    else {
        panic!("not those to remove");
    };
    let mut found: Vec<_> = found.iter().map(|it| it.id).collect();
    found.sort_unstable();
    found
}

fn removed(backend: &Backend, uploads: &[u128]) {
    let uploads = uploads.iter().map(|n| upload(*n)).collect();
    assert_eq!(
        call(backend, UploadCall::Removed(uploads)),
        UploadAnswer::Removed
    );
}

fn with_files(room: RoomId, sender: u128, id: u128, text: &str, uploads: &[u128]) -> Op {
    let file = |n: &u128| SentFile {
        upload: upload(*n),
        width: Some(640),
        height: Some(480),
        duration_ms: None,
        placeholder: Some("LEHV6nWB2yk8".to_owned()),
    };
    let mut op = send(room, sender, id, text);
    if let OpKind::Send { files, .. } = &mut op.kind {
        *files = Some(Box::new(SentFiles {
            kind: UploadKind::Image,
            files: uploads.iter().map(file).collect(),
        }));
    }
    op
}

fn attachment(n: u128) -> Attachment {
    Attachment {
        upload_id: upload(n),
        name: format!("file {n}"),
        size: 1_000 + n as u64,
        content_type: "image/png".to_owned(),
        width: Some(640),
        height: Some(480),
        duration_ms: None,
        placeholder: Some("LEHV6nWB2yk8".to_owned()),
    }
}

/// A room of users 1 and 2, in which user 3 is not.
fn room_of_two(backend: &Backend) -> RoomId {
    backend.users(3);
    let room = group_id(1, 1);
    backend.done(create_group(1, 1, [2]));
    room
}

fn message_of(done: &OpDone) -> Message {
    let [event] = &done.events[..] else {
        panic!("not one event");
    };
    let RoomEventBody::MessageCreated { message, .. } = &event.body else {
        panic!("no message");
    };
    Message::clone(message)
}

#[test]
fn a_message_has_its_files_wherever_it_is_told() {
    for backend in Backend::all() {
        let room = room_of_two(&backend);
        brought(&backend, room, 1, 1);
        brought(&backend, room, 1, 2);
        let done = backend.done(with_files(room, 1, 9, "", &[2, 1]));
        let (seq, duplicate) = sent(&done);
        assert!(!duplicate);
        let message = message_of(&done);
        assert_eq!(message.kind, MessageKind::Image);
        assert_eq!(message.text, None);
        assert_eq!(message.attachments, [attachment(2), attachment(1)]);
        assert_eq!(backend.message(room, 2, seq), message);
        let told = backend.all_events(room).events;
        assert_eq!(told.last(), done.events.last());
        assert_eq!(
            shown(&backend, room, 2, &[1, 2]),
            Ok(vec![upload(1), upload(2)])
        );

        // A caption is a text like any other, and may be changed; the files stay.
        brought(&backend, room, 1, 3);
        let done = backend.done(with_files(room, 1, 10, "look", &[3]));
        let (seq, _) = sent(&done);
        let edited = backend.done(edit(room, 1, seq, "look!"));
        let RoomEventBody::MessageUpdated { message, .. } = &edited.events[0].body else {
            panic!("not an edit");
        };
        assert_eq!(message.text.as_deref(), Some("look!"));
        assert_eq!(message.kind, MessageKind::Image);
        assert_eq!(message.attachments, [attachment(3)]);
        assert_eq!(
            &backend.message(room, 2, seq).attachments,
            &message.attachments
        );
        // Reactions come and go beside them.
        backend.done(react(room, 2, seq, "👍"));
        assert_eq!(backend.message(room, 2, seq).attachments, [attachment(3)]);
        // Neither are there files where none were sent.
        let plain = sent(&backend.done(send(room, 1, 11, "plain"))).0;
        let plain = backend.message(room, 2, plain);
        assert_eq!(
            (plain.kind, plain.attachments.len()),
            (MessageKind::Text, 0)
        );
    }
}

#[test]
fn an_upload_is_in_one_message_and_a_retry_is_that_message() {
    for backend in Backend::all() {
        let room = room_of_two(&backend);
        brought(&backend, room, 1, 1);
        let first = backend.done(with_files(room, 1, 9, "a", &[1]));
        let again = backend.done(with_files(room, 1, 9, "a", &[1]));
        assert_eq!(sent(&again), (sent(&first).0, true));
        assert!(again.events.is_empty());
        for op in [
            with_files(room, 1, 9, "b", &[1]),
            with_files(room, 1, 9, "a", &[2]),
            send(room, 1, 9, "a"),
        ] {
            assert_eq!(backend.refused(op), ErrorCode::IdempotencyConflict);
        }
        let other = with_files(room, 1, 10, "a", &[1]);
        assert_eq!(backend.refused(other), ErrorCode::Gone);
        // Also after it is deleted, and after its sender is gone.
        backend.done(delete(room, 1, sent(&first).0));
        assert!(sent(&backend.done(with_files(room, 1, 9, "a", &[1]))).1);
        brought(&backend, room, 2, 3);
        backend.done(with_files(room, 2, 9, "", &[3]));
        backend.done(leave(room, 2));
        assert!(sent(&backend.done(with_files(room, 2, 9, "", &[3]))).1);
    }
}

#[test]
fn what_may_not_be_used_is_refused_and_leaves_nothing() {
    for backend in Backend::all() {
        let room = room_of_two(&backend);
        let other = group_id(1, 2);
        backend.done(create_group(1, 2, [2]));
        let before = backend.last_seq(room);
        let refused = |id, uploads: &[u128]| backend.refused(with_files(room, 1, id, "", uploads));

        assert_eq!(refused(20, &[99]), ErrorCode::NotFound, "unknown");
        brought(&backend, room, 2, 1);
        assert_eq!(refused(21, &[1]), ErrorCode::NotFound, "of another user");
        brought(&backend, other, 1, 2);
        assert_eq!(refused(22, &[2]), ErrorCode::NotFound, "for another room");
        create(&backend, room, 1, 3).expect("a ticket");
        assert_eq!(refused(23, &[3]), ErrorCode::NotFound, "not brought yet");
        create(&backend, room, 1, 4).expect("a ticket");
        seen(&backend, 4, UploadState::Wrong);
        assert_eq!(refused(24, &[4]), ErrorCode::UnsupportedMedia);
        create(&backend, room, 1, 5).expect("a ticket");
        seen(&backend, 5, UploadState::TooLarge);
        assert_eq!(refused(25, &[5]), ErrorCode::TooLarge);
        let pdf = (UploadKind::File, "application/pdf");
        call(&backend, create_of(room, 1, 6, pdf, QUOTA));
        seen(&backend, 6, UploadState::Checked);
        assert_eq!(refused(26, &[6]), ErrorCode::BadRequest, "of another kind");
        // The first that is wrong decides, and the good one before it is not used up.
        brought(&backend, room, 1, 7);
        assert_eq!(refused(27, &[7, 5, 3]), ErrorCode::TooLarge);
        assert_eq!(refused(28, &[7, 3, 5]), ErrorCode::NotFound);
        assert_eq!(
            own(&backend, room, 1, &[7]),
            [(upload(7), UploadState::Checked)]
        );
        assert_eq!(backend.last_seq(room), before, "nothing was written");
        backend.done(with_files(room, 1, 29, "", &[7]));
        assert_eq!(refused(30, &[7]), ErrorCode::Gone, "used");
        // What was seen once counts.
        seen(&backend, 5, UploadState::Checked);
        assert_eq!(refused(31, &[5]), ErrorCode::TooLarge);
        // What stands before the files decides before them.
        assert_eq!(
            backend.refused(with_files(room, 3, 32, "", &[7])),
            ErrorCode::Forbidden
        );
    }
}

#[test]
fn a_ticket_ends_and_an_upload_that_nobody_uses_is_removed() {
    for backend in Backend::all() {
        let room = room_of_two(&backend);
        create(&backend, room, 1, 1).expect("a ticket");
        brought(&backend, room, 1, 2);
        brought(&backend, room, 1, 3);
        let used = backend.done(with_files(room, 1, 8, "", &[3]));
        backend.set_clock_ms(START_MS + limits::UPLOAD_TICKET_MS);
        let refused = |id, n| backend.refused(with_files(room, 1, id, "", &[n]));
        assert_eq!(refused(9, 1), ErrorCode::Gone, "expired");
        assert_eq!(to_remove(&backend, None), []);

        backend.set_clock_ms(START_MS + limits::UPLOAD_UNUSED_MS);
        assert_eq!(refused(10, 2), ErrorCode::Gone, "its time has come");
        assert_eq!(to_remove(&backend, None), [upload(1), upload(2)]);
        assert_eq!(to_remove(&backend, None), [], "somebody has them");
        assert_eq!(refused(11, 2), ErrorCode::Gone);
        // Whoever had them stopped before it was done.
        backend.set_clock_ms(START_MS + limits::UPLOAD_UNUSED_MS + REMOVE_LEASE_MS);
        assert_eq!(to_remove(&backend, None), [upload(1), upload(2)]);
        removed(&backend, &[1, 2]);
        removed(&backend, &[1, 2]);
        assert_eq!(own(&backend, room, 1, &[1, 2]), []);
        assert_eq!(shown(&backend, room, 2, &[3]), Ok(vec![upload(3)]));
        // What a message uses is never removed by mistake.
        removed(&backend, &[3]);
        assert_eq!(shown(&backend, room, 2, &[3]), Ok(vec![upload(3)]));
        assert_eq!(
            backend.message(room, 2, sent(&used).0).attachments,
            [attachment(3)]
        );
    }
}

#[test]
fn the_files_of_a_deleted_message_are_shown_no_more_and_removed() {
    for backend in Backend::all() {
        let room = room_of_two(&backend);
        brought(&backend, room, 1, 1);
        let seq = sent(&backend.done(with_files(room, 1, 9, "look", &[1]))).0;
        backend.done(delete(room, 1, seq));
        let message = backend.message(room, 2, seq);
        assert_eq!(message.kind, MessageKind::Image);
        assert_eq!((message.text, message.attachments), (None, Vec::new()));
        assert_eq!(shown(&backend, room, 2, &[1]), Ok(vec![]));
        assert_eq!(to_remove(&backend, None), [upload(1)]);
        removed(&backend, &[1]);
        // It counts for what its owner brings in a day, and then nothing is left of it.
        assert_eq!(
            own(&backend, room, 1, &[1]),
            [(upload(1), UploadState::Removed)]
        );
        assert_eq!(to_remove(&backend, None), []);
        backend.set_clock_ms(START_MS + limits::UPLOAD_QUOTA_MS);
        assert_eq!(to_remove(&backend, None), [upload(1)]);
        removed(&backend, &[1]);
        assert_eq!(own(&backend, room, 1, &[1]), []);
    }
}

#[test]
fn nothing_is_left_of_the_files_of_an_erased_user() {
    for backend in Backend::all() {
        let room = room_of_two(&backend);
        brought(&backend, room, 2, 1);
        brought(&backend, room, 2, 2);
        brought(&backend, room, 1, 3);
        let seq = sent(&backend.done(with_files(room, 2, 9, "mine", &[1]))).0;
        let others = sent(&backend.done(with_files(room, 1, 9, "", &[3]))).0;
        let upkeep = |step| match backend.call(StoreCall::Upkeep(step)) {
            StoreAnswer::Upkeep(done) => done,
            other => panic!("{other:?}"),
        };
        upkeep(Upkeep::EraseBegin(user(2)));
        assert_eq!(
            create(&backend, room, 2, 4).expect_err("gone").code,
            ErrorCode::Forbidden
        );
        let UpkeepDone::EraseNext(Some(erasure)) = upkeep(Upkeep::EraseNext(None)) else {
            panic!("nothing to erase");
        };
        let kind = OpKind::Erase {
            requested_at: erasure.requested_at,
        };
        let actor = user(2);
        backend.done(Op { actor, room, kind });
        let message = backend.message(room, 1, seq);
        assert_eq!(message.kind, MessageKind::Image);
        assert_eq!((message.text, message.attachments), (None, Vec::new()));
        assert_eq!(shown(&backend, room, 1, &[1, 3]), Ok(vec![upload(3)]));
        assert_eq!(
            backend.message(room, 1, others).attachments,
            [attachment(3)]
        );

        let end = || upkeep(Upkeep::EraseEnd(user(2)));
        assert_eq!(end(), UpkeepDone::EraseEnd(false), "there are files");
        assert_eq!(to_remove(&backend, Some(2)), [upload(1), upload(2)]);
        assert_eq!(
            end(),
            UpkeepDone::EraseEnd(false),
            "they are not removed yet"
        );
        removed(&backend, &[1, 2]);
        assert_eq!(end(), UpkeepDone::EraseEnd(true));
        let call = UploadCall::Own(named(room, 2, &[1, 2]));
        assert_eq!(self::call(&backend, call), UploadAnswer::Own(Vec::new()));
    }
}

#[test]
fn a_user_brings_so_much_in_a_day_and_only_where_they_may_send() {
    for backend in Backend::all() {
        let room = room_of_two(&backend);
        let image = (UploadKind::Image, "image/png");
        let ask = |owner, n, uploads, bytes| {
            let quota = UploadQuota { uploads, bytes };
            match call(&backend, create_of(room, owner, n, image, quota)) {
                UploadAnswer::Created(created) => created,
                other => panic!("{other:?}"),
            }
        };
        let until = UnixMs(START_MS + limits::UPLOAD_TICKET_MS);
        assert_eq!(ask(1, 1, 2, 1_000_000), Ok(until));
        backend.set_clock_ms(START_MS + 1_000);
        assert_eq!(ask(1, 1, 2, 1_000_000), Ok(until), "asked again");
        // 1,001 bytes are taken; with 1,002 more it is 2,003.
        let refused = ask(1, 2, 2, 2_002).expect_err("too many bytes");
        assert_eq!(refused.code, ErrorCode::RateLimited);
        assert_eq!(
            refused.retry_after_ms,
            Some(limits::UPLOAD_QUOTA_MS - 1_000)
        );
        assert!(ask(1, 2, 2, 2_003).is_ok());
        let refused = ask(1, 3, 2, 1_000_000).expect_err("too many");
        assert_eq!(refused.code, ErrorCode::RateLimited);
        assert!(ask(2, 4, 2, 1_000_000).is_ok(), "each for themselves");
        backend.set_clock_ms(START_MS + limits::UPLOAD_QUOTA_MS);
        assert!(ask(1, 3, 2, 1_000_000).is_ok(), "the next day");
        // Neither strangers nor who is blocked.
        let refused = create(&backend, room, 3, 9).expect_err("no member");
        assert_eq!(refused.code, ErrorCode::Forbidden);
        let direct = RoomId::direct(user(1), user(2));
        backend.done(create_direct(1, 2));
        assert!(create(&backend, direct, 1, 10).is_ok());
        brought(&backend, direct, 2, 12);
        let before = backend.done(with_files(direct, 2, 1, "", &[12]));
        backend.done(block(2, 1));
        let refused = create(&backend, direct, 1, 11).expect_err("blocked");
        assert_eq!(refused.code, ErrorCode::Forbidden);
        // What was there is seen all the same.
        assert_eq!(shown(&backend, direct, 1, &[12]), Ok(vec![upload(12)]));
        assert!(sent(&before).0 > 1);
        let refused = shown(&backend, room, 3, &[1]).expect_err("no member");
        assert_eq!(refused.code, ErrorCode::Forbidden);
    }
}

#[test]
fn of_many_messages_at_once_one_gets_the_upload() {
    for backend in Backend::all() {
        let room = room_of_two(&backend);
        for round in 0..10u128 {
            let n = 100 + round;
            brought(&backend, room, 1, n);
            let barrier = Arc::new(Barrier::new(4));
            let callers: Vec<_> = (0..4u128)
                .map(|caller| {
                    let (store, barrier) = (Arc::clone(backend.store()), Arc::clone(&barrier));
                    std::thread::spawn(move || {
                        let op = with_files(room, 1, n * 10 + caller, "", &[n]);
                        barrier.wait();
                        let answer = ask(&store, StoreCall::Commit(vec![op]));
                        let Ok(StoreAnswer::Commit(mut outcomes)) = answer else {
                            panic!("not the answer to a commit");
                        };
                        match outcomes.remove(0) {
                            Ok(done) => Some(sent(&done).0),
                            Err(refusal) => {
                                assert_eq!(refusal.code, ErrorCode::Gone);
                                None
                            }
                        }
                    })
                })
                .collect();
            let used: Vec<Seq> = callers
                .into_iter()
                .filter_map(|caller| caller.join().expect("a caller"))
                .collect();
            assert_eq!(used.len(), 1, "one message has it");
            assert_eq!(backend.last_seq(room), used[0]);
        }
    }
}

#[test]
fn the_files_of_messages_that_are_dropped_by_age_are_removed() {
    for backend in Backend::all() {
        backend.users(2);
        let room = group_id(1, 1);
        at_day(&backend, 0);
        backend.done(create_group(1, 1, [2]));
        brought(&backend, room, 1, 1);
        brought(&backend, room, 1, 2);
        let old = sent(&backend.done(with_files(room, 1, 1, "", &[1]))).0;
        at_day(&backend, 30);
        brought(&backend, room, 1, 3);
        backend.done(with_files(room, 1, 2, "", &[3]));
        removed(&backend, &[2]);
        assert!(retain(&backend, room, 15));
        assert!(to_remove(&backend, None).contains(&upload(1)));
        assert!(!to_remove(&backend, None).contains(&upload(3)));
        assert_eq!(shown(&backend, room, 2, &[3]), Ok(vec![upload(3)]));
        assert_eq!(shown(&backend, room, 2, &[1]), Ok(vec![]));
        // A retry of what was dropped is still the first one.
        let again = backend.done(with_files(room, 1, 1, "", &[1]));
        assert_eq!(sent(&again), (old, true));
    }
}

/// What an export is given of a user's uploads after a place: number, room, and when.
fn exported(
    backend: &Backend,
    n: u128,
    after: Option<(UnixMs, UploadId)>,
) -> Vec<export::ExportUpload> {
    let read = export::ExportRead {
        user: user(n),
        part: export::ExportPart::Uploads(after),
    };
    let call = admin::AdminCall::Export(read);
    let StoreAnswer::Admin(answer) = backend.call(StoreCall::Admin(Box::new(call))) else {
        panic!("not the answer to an export");
    };
    match *answer {
        admin::AdminAnswer::Export(export::ExportPage {
            found: export::ExportFound::Uploads(found),
            next: None,
        }) => found,
        other => panic!("{other:?}"),
    }
}

#[test]
fn an_export_is_given_all_that_a_user_brought_page_by_page() {
    for backend in Backend::all() {
        backend.users(2);
        let room = group_id(1, 1);
        backend.done(create_group(1, 1, [2]));
        let uploads = export::EXPORT_PAGE as u128 + 5;
        let many = UploadQuota {
            uploads: 1_000,
            ..QUOTA
        };
        for n in 1..=uploads {
            let image = (UploadKind::Image, "image/png");
            call(&backend, create_of(room, 1, n, image, many));
        }
        brought(&backend, room, 2, 1_000);
        // One is sent, one was removed.
        seen(&backend, 2, UploadState::Checked);
        let (seq, _) = sent(&backend.done(with_files(room, 1, 1, "with a file", &[2])));
        seen(&backend, 3, UploadState::Checked);
        let (gone, _) = sent(&backend.done(with_files(room, 1, 2, "another", &[3])));
        backend.done(delete(room, 1, gone));

        let first = exported(&backend, 1, None);
        assert_eq!(first.len(), export::EXPORT_PAGE);
        let place = |it: &export::ExportUpload| (it.created_at, it.upload.id);
        let rest = exported(&backend, 1, first.last().map(place));
        let found: Vec<_> = first.iter().chain(&rest).collect();
        let ids: Vec<UploadId> = found.iter().map(|it| it.upload.id).collect();
        let expected: Vec<UploadId> = (1..=uploads).filter(|n| *n != 3).map(upload).collect();
        assert_eq!(ids, expected, "the clock of the tests stands still");
        assert!(found.iter().all(|it| it.room == room));
        let used = &found[1].upload;
        assert_eq!(
            (used.state, used.message_seq),
            (UploadState::Used, Some(seq))
        );
        assert_eq!((&used.key, used.size), (&key(2), 1_002));
        assert!(exported(&backend, 1, found.last().map(|it| place(it))).is_empty());

        let read = export::ExportRead {
            user: user(1),
            part: export::ExportPart::InRoom(export::ExportKind::Messages, room, 0),
        };
        let messages = backend.call(StoreCall::Admin(Box::new(admin::AdminCall::Export(read))));
        let StoreAnswer::Admin(answer) = messages else {
            panic!("not the answer to an export");
        };
        let admin::AdminAnswer::Export(export::ExportPage {
            found: export::ExportFound::Messages(messages),
            ..
        }) = *answer
        else {
            panic!("not messages");
        };
        let files: Vec<usize> = messages.iter().map(|it| it.attachments.len()).collect();
        assert_eq!(files, [1, 0], "the second one was deleted");
        assert_eq!(messages[0].attachments[0].upload_id, upload(2));
    }
}
