//! What is given of a user's data: theirs alone, all of it, page by page.

use crate::harness::*;
use caffis_chat::chat::port::admin::{AdminAnswer, AdminCall};
use caffis_chat::chat::port::export::*;
use caffis_chat::chat::port::upkeep::{DAY_MS, Upkeep};
use caffis_chat::chat::port::*;
use caffis_chat::protocol::view::{Role, RoomKind};
use caffis_chat::protocol::{RoomId, Seq, UnixMs};

fn read(backend: &Backend, n: u128, part: ExportPart) -> ExportPage {
    let read = ExportRead {
        user: user(n),
        part,
    };
    match backend.call(StoreCall::Admin(Box::new(AdminCall::Export(read)))) {
        StoreAnswer::Admin(answer) => match *answer {
            AdminAnswer::Export(page) => page,
            other => panic!("{other:?}"),
        },
        other => panic!("{other:?}"),
    }
}

fn in_room(backend: &Backend, n: u128, kind: ExportKind, room: RoomId) -> Vec<ExportFound> {
    let (mut pages, mut after): (Vec<ExportFound>, Seq) = (Vec::new(), 0);
    loop {
        let page = read(backend, n, ExportPart::InRoom(kind, room, after));
        pages.push(page.found);
        match page.next {
            Some(next) => {
                assert_eq!(next, after + EXPORT_STRETCH);
                after = next;
            }
            None => return pages,
        }
    }
}

/// `seq` and text of all messages in a room.
fn messages(backend: &Backend, n: u128, room: RoomId) -> Vec<(Seq, Option<String>)> {
    let pages = in_room(backend, n, ExportKind::Messages, room).into_iter();
    let of = |page| match page {
        ExportFound::Messages(found) => found,
        other => panic!("{other:?}"),
    };
    pages
        .flat_map(of)
        .map(|message| (message.seq, message.text))
        .collect()
}

#[test]
fn a_user_is_given_what_is_theirs_and_nothing_of_others() {
    for backend in Backend::all() {
        backend.users(3);
        let room = group_id(1, 1);
        backend.done(create_group(1, 1, [2, 3]));
        let own = sent(&backend.done(send(room, 2, 1, "mine"))).0;
        let edited = sent(&backend.done(mentioning(room, 2, 2, "first", [3]))).0;
        backend.done(edit(room, 2, edited, "second"));
        let deleted = sent(&backend.done(send(room, 2, 3, "gone"))).0;
        backend.done(delete(room, 2, deleted));
        let other = sent(&backend.done(mentioning(room, 1, 4, "theirs", [2]))).0;
        backend.done(react(room, 2, other, "👍"));
        backend.done(react(room, 2, own, "🎉"));
        backend.done(react(room, 1, own, "👍"));
        backend.done(change(room, 2, other, MessageChange::Report));
        backend.done(change(room, 1, own, MessageChange::Report));
        backend.done(block(2, 3));
        backend.done(block(1, 2));
        let direct = RoomId::direct(user(2), user(1));
        backend.done(unblock(1, 2));
        backend.done(create_direct(2, 1));
        backend.done(leave(room, 2));

        let ExportFound::Rooms(rooms) = read(&backend, 2, ExportPart::Rooms(None)).found else {
            panic!("not rooms");
        };
        assert_eq!(rooms.len(), 2);
        assert!(rooms.is_sorted_by_key(|room| room.room_id));
        let of = |id| rooms.iter().find(|room| room.room_id == id).expect("it");
        let left = of(room);
        assert_eq!((left.kind, left.role), (RoomKind::Group, Role::Member));
        assert_eq!((&left.title, left.with), (&None, None), "as they left");
        assert_eq!(left.left_at, Some(UnixMs(START_MS)));
        assert_eq!(left.read_seq, deleted);
        let with = of(direct);
        assert_eq!((with.kind, with.with), (RoomKind::Direct, Some(user(1))));
        assert_eq!(with.left_at, None);
        assert!(matches!(
            read(&backend, 2, ExportPart::Rooms(Some(rooms[1].room_id))).found,
            ExportFound::Rooms(none) if none.is_empty()
        ));
        let ExportFound::Rooms(others) = read(&backend, 1, ExportPart::Rooms(None)).found else {
            panic!("not rooms");
        };
        let group = others.iter().find(|it| it.room_id == room).expect("it");
        assert_eq!(group.title.as_deref(), Some("group 1"));

        let expected = [
            (own, Some("mine".to_owned())),
            (edited, Some("second".to_owned())),
            (deleted, None),
        ];
        assert_eq!(messages(&backend, 2, room), expected);
        let ExportFound::Messages(found) = &in_room(&backend, 2, ExportKind::Messages, room)[0]
        else {
            panic!("not messages");
        };
        assert_eq!((found[1].revision, found[1].mentions.len()), (2, 1));
        assert!(found[2].deleted_at.is_some() && found[0].client_msg_id.is_some());

        let ExportFound::Reactions(found) = &in_room(&backend, 2, ExportKind::Reactions, room)[0]
        else {
            panic!("not reactions");
        };
        let found: Vec<_> = found
            .iter()
            .map(|it| (it.message_seq, it.emoji.as_str()))
            .collect();
        assert_eq!(found, [(own, "🎉"), (other, "👍")]);

        let ExportFound::Mentions(found) = &in_room(&backend, 2, ExportKind::Mentions, room)[0]
        else {
            panic!("not mentions");
        };
        assert_eq!(found.len(), 1);
        assert_eq!(found[0].message_seq, other);

        let ExportFound::Reports(found) = &in_room(&backend, 2, ExportKind::Reports, room)[0]
        else {
            panic!("not reports");
        };
        assert_eq!(found.len(), 1);
        assert_eq!((found[0].message_seq, found[0].revision), (other, 1));

        let ExportFound::Blocks(found) = read(&backend, 2, ExportPart::Blocks(None)).found else {
            panic!("not blocks");
        };
        assert_eq!(found.len(), 1);
        assert_eq!(found[0].user_id, user(3));
        assert!(matches!(
            read(&backend, 2, ExportPart::Blocks(Some(user(3)))).found,
            ExportFound::Blocks(none) if none.is_empty()
        ));
        // A room that is none, and a user who is none.
        assert!(messages(&backend, 2, group_id(1, 9)).is_empty());
        assert!(messages(&backend, 9, room).is_empty());
    }
}

#[test]
fn a_long_room_is_given_in_stretches_and_without_what_was_dropped() {
    for backend in Backend::all() {
        backend.users(2);
        let room = group_id(1, 1);
        backend.done(create_group(1, 1, [2]));
        let count = 2 * u128::from(EXPORT_STRETCH) + 10;
        for chunk in (1..=count).collect::<Vec<_>>().chunks(500) {
            let op = |n: &u128| send(room, 1 + n % 2, *n, "text");
            backend.commit(chunk.iter().map(op).collect());
        }
        let pages = in_room(&backend, 1, ExportKind::Messages, room);
        assert_eq!(pages.len(), 3);
        let seqs: Vec<Seq> = messages(&backend, 1, room).iter().map(|it| it.0).collect();
        assert_eq!(seqs.len() as u128, count / 2);
        assert!(seqs.is_sorted());
        backend.set_clock_ms(START_MS + 40 * DAY_MS);
        let step = Upkeep::Retain { room, days: 30 };
        backend.call(StoreCall::Upkeep(step));
        let floor = backend.all_events(room).floor;
        assert!(floor > 0);
        let left = messages(&backend, 1, room);
        let expected: Vec<Seq> = seqs.into_iter().filter(|seq| *seq > floor).collect();
        assert_eq!(left.iter().map(|it| it.0).collect::<Vec<_>>(), expected);
        assert!(left.iter().all(|it| it.1.is_some()));
    }
}
