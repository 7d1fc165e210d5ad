//! The AsyncAPI document: it is complete, it is fresh, and it says what the code does. One frame
//! of every message is made by the production types and must be that message and no other.

#[path = "support/schema.rs"]
mod schema;

use caffis_chat::protocol::block::{BlockSet, BlockedUser, BlocksListed, BlocksUpdated};
use caffis_chat::protocol::event::{
    DURABLE_NAMES, MessageDeleted, MessagePinned, MessageUnpinned, Notice, PING_JSON,
    ReactionUpdated, RoomAdded, RoomEvent, RoomEventBody, RoomGap, RoomNotice, RoomRemoved,
    ServerClosing, ServerDraining, TypingUpdated, UnreadUpdated, UserUpdated,
};
use caffis_chat::protocol::presence::{
    PresenceChoice, PresenceIs, PresenceSnapshot, PresenceState, PresenceUpdated, UserPresence,
};
use caffis_chat::protocol::reply::{
    self, Changed, History, Limits, MembersListed, MessageChanged, NotRecovered, Ready, ReadyRoom,
    Refreshed, RoomCreated, RoomGot, RoomsListed, Sent,
};
use caffis_chat::protocol::request::{Command, Request};
use caffis_chat::protocol::search::{SearchHit, SearchHits};
use caffis_chat::protocol::upload::{AttachmentUrl, AttachmentUrlsTold, UploadTicket};
use caffis_chat::protocol::view::{
    All, Attachment, ListedRoom, Member, MemberJoined, MemberLeft, MemberRoleChanged, Mention,
    Message, MessageKind, OwnView, Pin, Reaction, ReactionLeft, Role, Room, RoomKind, RoomUpdated,
    SystemEvent, UserErased, Watermark,
};
use caffis_chat::protocol::{
    ClientMsgId, CloseCode, Epoch, ErrorCode, RoomId, UnixMs, UploadId, UserId, asyncapi, openapi,
};
use schema::{all_fitting, all_keys, validate_client_frame, validate_reply, validate_server_frame};
use std::collections::{BTreeMap, BTreeSet};
use uuid::Uuid;

const ROOM: RoomId = RoomId(Uuid::from_u128(1));
const USER: UserId = UserId(Uuid::from_u128(2));
const UPLOAD: UploadId = UploadId(Uuid::from_u128(7));
const TS: UnixMs = UnixMs(1_700_000_000_123);

fn message(kind: MessageKind, event: Option<SystemEvent>) -> Message {
    let is_text = kind == MessageKind::Text;
    Message {
        seq: 5,
        sender_id: USER,
        client_msg_id: is_text.then_some(ClientMsgId(Uuid::from_u128(3))),
        kind,
        text: is_text.then(|| "Coffee? ☕".to_owned()),
        event,
        attachments: match kind {
            MessageKind::Image => vec![attachment()],
            _ => Vec::new(),
        },
        reply_to_seq: is_text.then_some(4),
        mentions: vec![Mention::All(All::All), Mention::User(USER)],
        reactions: BTreeMap::from([(
            "👍".to_owned(),
            Reaction {
                count: 2,
                mine: is_text.then_some(true),
            },
        )]),
        changed_seq: 5,
        revision: 1,
        edited_at: None,
        deleted_at: None,
        created_at: TS,
    }
}

fn attachment() -> Attachment {
    Attachment {
        upload_id: UPLOAD,
        name: "a.png".to_owned(),
        size: 100,
        content_type: "image/png".to_owned(),
        width: Some(640),
        height: Some(480),
        duration_ms: Some(1_500),
        placeholder: Some("LEHV6nWB2yk8".to_owned()),
    }
}

fn room() -> Room {
    let member = Member {
        user_id: USER,
        name: "Ada".to_owned(),
        role: Role::Owner,
        read_seq: 5,
        delivered_seq: 5,
    };
    Room {
        room_id: ROOM,
        kind: RoomKind::Group,
        title: Some("Coffee".to_owned()),
        picture: Some("https://caffis.example/mill.jpg".to_owned()),
        created_at: TS,
        last_seq: 5,
        member_count: 1,
        members: vec![member],
        pins: Some(vec![Pin {
            message_seq: 4,
            pinned_by: USER,
            pinned_at: TS,
        }]),
    }
}

fn own() -> OwnView {
    OwnView {
        read_seq: 1,
        unread: 4,
        muted_until: Some(TS),
        archived: true,
    }
}

fn ready() -> Ready {
    let described = ReadyRoom {
        room_id: ROOM,
        kind: Some(RoomKind::Direct),
        last_seq: 5,
        read_seq: 1,
        unread: 2,
        recovered: true,
        reason: None,
        from_seq: Some(2),
        to_seq: Some(5),
        muted_until: Some(UnixMs::FOR_GOOD),
        archived: true,
        watermarks: vec![Watermark {
            user_id: USER,
            read_seq: 1,
            delivered_seq: 2,
        }],
    };
    let lost = ReadyRoom {
        room_id: ROOM,
        kind: None,
        last_seq: 0,
        read_seq: 0,
        unread: 0,
        recovered: false,
        reason: Some(NotRecovered::NotAMember),
        from_seq: None,
        to_seq: None,
        muted_until: None,
        archived: false,
        watermarks: Vec::new(),
    };
    Ready {
        user_id: USER,
        connection_id: "0-1".to_owned(),
        node: "n1".to_owned(),
        epoch: Epoch(7),
        server_time: TS,
        token_expires_at: TS,
        limits: Limits {
            frame_bytes: 65_536,
            rooms_per_user: 5_000,
            text_chars: 4_000,
            sends_per_10s: 50,
            commands_per_10s: 200,
            typing_interval_ms: 3_000,
            ping_interval_ms: 25_000,
            ping_timeout_ms: 10_000,
            replay_max: 300,
            history_page_max: 100,
            durability: "commit",
        },
        rooms: vec![described, lost],
        rooms_more: true,
        paused: vec!["typing"],
    }
}

/// Everything that can be said of a user.
fn presences() -> Vec<UserPresence> {
    let seen = |state, last_seen_at| UserPresence {
        user_id: USER,
        state,
        last_seen_at,
    };
    vec![
        seen(PresenceState::Online, None),
        seen(PresenceState::Away, None),
        seen(PresenceState::Offline, None),
        seen(PresenceState::Offline, Some(TS)),
    ]
}

/// The reply to each request, as the server writes it.
fn replies() -> Vec<(&'static str, String)> {
    let changed = Changed {
        room_id: ROOM,
        changed: true,
        seq: Some(6),
    };
    let unchanged = Changed {
        room_id: ROOM,
        changed: false,
        seq: None,
    };
    let message_changed = MessageChanged {
        room_id: ROOM,
        message_seq: 5,
        changed: true,
        seq: 6,
        revision: 2,
    };
    let block = BlockSet {
        user_id: USER,
        blocked: true,
        changed: true,
    };
    let sent = Sent {
        client_msg_id: ClientMsgId(Uuid::from_u128(3)),
        room_id: ROOM,
        seq: 5,
        ts: TS,
        duplicate: false,
    };
    let listed = ListedRoom {
        room: room(),
        own: own(),
        last_message: Some(message(MessageKind::Text, None)),
    };
    let empty = ListedRoom {
        last_message: None,
        ..listed.clone()
    };
    let joined = SystemEvent::MemberJoined(MemberJoined {
        user_id: USER,
        name: "Ada".to_owned(),
        role: Role::Member,
        actor_id: USER,
    });
    let history = History {
        messages: vec![
            message(MessageKind::Text, None),
            message(MessageKind::Image, None),
            message(MessageKind::System, Some(joined)),
            message(
                MessageKind::System,
                Some(SystemEvent::RoomCreated { actor_id: USER }),
            ),
        ],
        has_more: true,
        last_seq: 5,
        next_after_seq: Some(5),
        floor_seq: Some(1),
    };
    vec![
        ("auth", reply::ready(1, &ready())),
        (
            "auth.refresh",
            reply::ack(
                1,
                &Refreshed {
                    token_expires_at: TS,
                },
            ),
        ),
        (
            "rooms.list",
            reply::ack(
                1,
                &RoomsListed {
                    rooms: vec![listed, empty],
                    next_cursor: Some("c".to_owned()),
                },
            ),
        ),
        (
            "room.create",
            reply::ack(
                1,
                &RoomCreated {
                    room: room(),
                    created: true,
                },
            ),
        ),
        (
            "room.get",
            reply::ack(
                1,
                &RoomGot {
                    room: room(),
                    own: own(),
                },
            ),
        ),
        ("room.leave", reply::ack(1, &unchanged)),
        ("room.mute", reply::ack(1, &unchanged)),
        ("room.archive", reply::ack(1, &unchanged)),
        (
            "room.members.list",
            reply::ack(
                1,
                &MembersListed {
                    members: room().members,
                    next_cursor: Some("c".to_owned()),
                },
            ),
        ),
        ("room.members.add", reply::ack(1, &changed)),
        ("room.members.remove", reply::ack(1, &changed)),
        ("room.role.set", reply::ack(1, &changed)),
        ("room.update", reply::ack(1, &changed)),
        ("message.send", reply::ack(1, &sent)),
        ("message.edit", reply::ack(1, &message_changed)),
        ("message.delete", reply::ack(1, &message_changed)),
        ("reaction.add", reply::ack(1, &message_changed)),
        ("reaction.remove", reply::ack(1, &message_changed)),
        ("message.pin", reply::ack(1, &message_changed)),
        ("message.unpin", reply::ack(1, &message_changed)),
        ("message.report", reply::ack(1, &message_changed)),
        ("history.get", reply::ack(1, &history)),
        (
            "presence.set",
            reply::ack(
                1,
                &PresenceIs {
                    state: PresenceChoice::Invisible,
                    changed: true,
                },
            ),
        ),
        (
            "presence.subscribe",
            reply::ack(
                1,
                &PresenceSnapshot {
                    users: presences(),
                    until: TS,
                },
            ),
        ),
        (
            "upload.create",
            reply::ack(
                1,
                &UploadTicket {
                    upload_id: UPLOAD,
                    method: "POST",
                    url: "/v1/files/chat-images".to_owned(),
                    fields: BTreeMap::from([("key".to_owned(), "ab/cd".to_owned())]),
                    expires_at: TS,
                },
            ),
        ),
        (
            "attachment.urls",
            reply::ack(
                1,
                &AttachmentUrlsTold {
                    urls: vec![AttachmentUrl {
                        upload_id: UPLOAD,
                        url: "https://files.example/chat-images/ab/cd?signature=x".to_owned(),
                        expires_at: TS,
                    }],
                    missing: vec![UploadId(Uuid::from_u128(8))],
                },
            ),
        ),
        (
            "search",
            reply::ack(
                1,
                &SearchHits {
                    hits: vec![SearchHit {
                        room_id: ROOM,
                        message: message(MessageKind::Text, None),
                    }],
                    has_more: true,
                    next_before: Some("b".to_owned()),
                },
            ),
        ),
        ("user.block", reply::ack(1, &block)),
        ("user.unblock", reply::ack(1, &block)),
        (
            "user.blocks",
            reply::ack(
                1,
                &BlocksListed {
                    users: vec![BlockedUser {
                        user_id: USER,
                        name: "Eve".to_owned(),
                        blocked_at: TS,
                    }],
                    next_cursor: Some("c".to_owned()),
                },
            ),
        ),
    ]
}

fn durable_events() -> Vec<String> {
    let bodies = [
        RoomEventBody::MessageCreated {
            message_seq: 105,
            message: Box::new(message(MessageKind::Text, None)),
        },
        RoomEventBody::RoomCreated {
            room: Box::new(room()),
        },
        RoomEventBody::MemberJoined(MemberJoined {
            user_id: USER,
            name: "Ada".to_owned(),
            role: Role::Member,
            actor_id: USER,
        }),
        RoomEventBody::MemberLeft(MemberLeft {
            user_id: USER,
            actor_id: USER,
        }),
        RoomEventBody::MemberRoleChanged(MemberRoleChanged {
            user_id: USER,
            role: Role::Admin,
            actor_id: USER,
        }),
        RoomEventBody::RoomUpdated(RoomUpdated {
            title: Some(Some("Tea".to_owned())),
            picture: Some(None),
            actor_id: USER,
        }),
        RoomEventBody::MessageUpdated {
            message_seq: 5,
            message: Box::new(message(MessageKind::Text, None)),
        },
        RoomEventBody::MessageDeleted(MessageDeleted {
            message_seq: 5,
            actor_id: USER,
            deleted_at: TS,
        }),
        RoomEventBody::ReactionUpdated(ReactionUpdated {
            message_seq: 5,
            user_id: USER,
            emoji: "👍".to_owned(),
            added: true,
            count: 2,
        }),
        RoomEventBody::MessagePinned(MessagePinned {
            message_seq: 5,
            actor_id: USER,
        }),
        RoomEventBody::MessageUnpinned(MessageUnpinned {
            message_seq: 5,
            actor_id: USER,
        }),
        RoomEventBody::UserErased(UserErased {
            user_id: USER,
            erased_as: UserId(Uuid::from_u128(9)),
            deleted_at: TS,
            owner_id: Some(USER),
            reactions: vec![ReactionLeft {
                message_seq: 5,
                emoji: "👍".to_owned(),
                count: 1,
            }],
            reactions_more: false,
        }),
    ];
    assert_eq!(bodies.len(), DURABLE_NAMES.len());
    bodies
        .into_iter()
        .map(|body| {
            RoomEvent {
                room_id: ROOM,
                seq: 5,
                ts: TS,
                body,
            }
            .to_json()
        })
        .collect()
}

fn notices() -> Vec<String> {
    let notices = [
        Notice::RoomAdded(RoomAdded {
            room: room(),
            last_seq: 5,
            read_seq: 5,
        }),
        Notice::RoomRemoved(RoomRemoved { room_id: ROOM }),
        Notice::PresenceUpdated(PresenceUpdated { users: presences() }),
        Notice::UnreadUpdated(UnreadUpdated {
            room_id: ROOM,
            own: own(),
        }),
        Notice::BlocksUpdated(BlocksUpdated {
            user_id: Some(USER),
            blocked: Some(true),
        }),
        Notice::BlocksUpdated(BlocksUpdated {
            user_id: None,
            blocked: None,
        }),
        Notice::UserUpdated(UserUpdated {
            user_id: USER,
            name: "Ada".to_owned(),
            picture: Some("https://app.example.org/ada.png".to_owned()),
            version: 7,
        }),
        Notice::UserUpdated(UserUpdated {
            user_id: USER,
            name: String::new(),
            picture: None,
            version: 0,
        }),
        Notice::ServerDraining(ServerDraining {
            reconnect_after_ms: 1,
        }),
        Notice::ServerClosing(ServerClosing {
            code: CloseCode::Draining as u16,
            retry_after_ms: 1_000,
        }),
    ];
    let typing = RoomNotice::TypingUpdated {
        room_id: ROOM,
        data: TypingUpdated {
            user_ids: vec![USER],
        },
    };
    let notices = notices.iter().map(Notice::to_json);
    let receipt = RoomNotice::ReceiptUpdated {
        room_id: ROOM,
        data: Watermark {
            user_id: USER,
            read_seq: 4,
            delivered_seq: 5,
        },
    };
    let gap = RoomNotice::RoomGap {
        room_id: ROOM,
        data: RoomGap {
            last_seq: 5,
            reason: NotRecovered::PositionExpired,
        },
    };
    notices
        .chain([typing, receipt, gap].iter().map(RoomNotice::to_json))
        .collect()
}

/// One of each request, as clients write them.
fn requests() -> Vec<(&'static str, String)> {
    let id = Uuid::from_u128(9);
    let data: &[(&str, String)] = &[
        (
            "auth",
            format!(
                r#"{{"token":"t","device_id":"d","client":{{"name":"n","version":"1"}},
                   "resume":{{"epoch":"e","rooms":{{"{id}":7}}}}}}"#
            ),
        ),
        ("auth.refresh", r#"{"token":"t"}"#.to_owned()),
        ("pong", "{}".to_owned()),
        ("rooms.list", r#"{"limit":10}"#.to_owned()),
        (
            "room.create",
            format!(r#"{{"kind":"direct","member_ids":["{id}"],"client_room_id":"{id}"}}"#),
        ),
        ("room.get", format!(r#"{{"room_id":"{id}"}}"#)),
        ("room.leave", format!(r#"{{"room_id":"{id}"}}"#)),
        (
            "room.mute",
            format!(r#"{{"room_id":"{id}","until":"2030-01-02T03:04:05.678Z"}}"#),
        ),
        (
            "room.archive",
            format!(r#"{{"room_id":"{id}","archived":false}}"#),
        ),
        (
            "room.members.list",
            format!(r#"{{"room_id":"{id}","cursor":"c","limit":10}}"#),
        ),
        ("receipt.delivered", format!(r#"{{"rooms":{{"{id}":7}}}}"#)),
        ("receipt.read", format!(r#"{{"rooms":{{"{id}":7}}}}"#)),
        (
            "room.members.add",
            format!(r#"{{"room_id":"{id}","user_ids":["{id}"]}}"#),
        ),
        (
            "room.members.remove",
            format!(r#"{{"room_id":"{id}","user_ids":[]}}"#),
        ),
        (
            "message.send",
            format!(
                r#"{{"room_id":"{id}","client_msg_id":"{id}","kind":"image","text":"x",
                   "reply_to_seq":1,"mentions":["all","{id}"],"attachments":[{{"upload_id":"{id}",
                   "width":640,"height":480,"duration_ms":1500,"placeholder":"L"}}]}}"#
            ),
        ),
        (
            "room.role.set",
            format!(r#"{{"room_id":"{id}","user_ids":["{id}"],"role":"admin"}}"#),
        ),
        (
            "room.update",
            format!(
                r#"{{"room_id":"{id}","title":"Tea","picture":"https://caffis.example/mill.jpg"}}"#
            ),
        ),
        (
            "message.edit",
            format!(r#"{{"room_id":"{id}","message_seq":5,"text":"x","expected_revision":1}}"#),
        ),
        (
            "message.delete",
            format!(r#"{{"room_id":"{id}","message_seq":5,"expected_revision":null}}"#),
        ),
        (
            "reaction.add",
            format!(r#"{{"room_id":"{id}","message_seq":5,"emoji":"👍"}}"#),
        ),
        (
            "reaction.remove",
            format!(r#"{{"room_id":"{id}","message_seq":5,"emoji":"👍"}}"#),
        ),
        (
            "message.pin",
            format!(r#"{{"room_id":"{id}","message_seq":5}}"#),
        ),
        (
            "message.unpin",
            format!(r#"{{"room_id":"{id}","message_seq":5}}"#),
        ),
        (
            "message.report",
            format!(r#"{{"room_id":"{id}","message_seq":5}}"#),
        ),
        ("typing.start", format!(r#"{{"room_id":"{id}"}}"#)),
        ("typing.stop", format!(r#"{{"room_id":"{id}"}}"#)),
        (
            "upload.create",
            format!(
                r#"{{"room_id":"{id}","kind":"image","name":"a.png","size":1,"content_type":"image/png","sha256":"{}"}}"#,
                "0f".repeat(32)
            ),
        ),
        (
            "attachment.urls",
            format!(r#"{{"room_id":"{id}","upload_ids":["{id}"]}}"#),
        ),
        (
            "history.get",
            format!(r#"{{"room_id":"{id}","before_seq":7}}"#),
        ),
        ("presence.set", r#"{"state":"away"}"#.to_owned()),
        ("presence.subscribe", format!(r#"{{"user_ids":["{id}"]}}"#)),
        (
            "search",
            format!(r#"{{"query":"coffee","room_id":"{id}","before":"b","limit":10}}"#),
        ),
        ("user.block", format!(r#"{{"user_id":"{id}"}}"#)),
        ("user.unblock", format!(r#"{{"user_id":"{id}"}}"#)),
        ("user.blocks", r#"{"cursor":"c","limit":10}"#.to_owned()),
    ];
    data.iter()
        .map(|(name, data)| {
            let frame = format!(r#"{{"id":1,"type":"{name}","data":{data}}}"#);
            (*name, frame)
        })
        .collect()
}

#[test]
fn every_message_of_the_document_is_what_the_code_writes_and_no_other() {
    let mut seen = BTreeSet::new();
    let mut see = |key: &'static str, frame: &str| {
        assert_eq!(all_fitting(frame), [key], "{frame}");
        seen.insert(key);
    };
    for (name, frame) in requests() {
        let key = validate_client_frame(&frame).expect("a request");
        assert_eq!(key, format!("request.{name}"));
        see(key, &frame);
    }
    for (name, frame) in replies() {
        let key = validate_reply(name, &frame).expect("its reply");
        assert_eq!(validate_server_frame(&frame), Ok(key));
        see(key, &frame);
    }
    let events = durable_events().into_iter().chain(notices());
    for frame in events.chain([PING_JSON.to_owned()]) {
        see(validate_server_frame(&frame).expect("an event"), &frame);
    }
    for code in ErrorCode::ALL {
        let with = reply::error(Some(1), *code, "why", Some(1_000));
        let without = reply::error(None, *code, "why", None);
        for frame in [with, without] {
            assert_eq!(validate_reply("message.send", &frame), Ok("reply.error"));
            see(validate_server_frame(&frame).expect("an error"), &frame);
        }
    }
    let all: BTreeSet<_> = all_keys().into_iter().collect();
    assert_eq!(seen, all, "a message of the document that nobody writes");
    assert_eq!(requests().len(), Command::NAMES.len());
}

#[test]
fn requests_are_refused_by_the_document_and_by_the_parser_alike() {
    let id = Uuid::from_u128(9);
    let check = |frame: &str, taken: bool| {
        let parsed = Request::parse(frame).command;
        let validated = validate_client_frame(frame);
        assert_eq!(parsed.is_ok(), taken, "parser: {frame}: {parsed:?}");
        assert_eq!(validated.is_ok(), taken, "document: {frame}: {validated:?}");
    };
    for (_, frame) in requests() {
        check(&frame, true);
    }
    check(r#"{"type":"pong"}"#, true);
    check(r#"{"type":"pong","id":null}"#, true);
    check(r#"{"type":"rooms.list","id":9007199254740992}"#, true);
    check(
        r#"{"type":"rooms.list","data":{"cursor":null,"limit":null}}"#,
        true,
    );
    for broken in [
        r#"{"type":"rooms.list","id":9007199254740993}"#,
        r#"{"type":"rooms.list","id":-1}"#,
        r#"{"type":"rooms.list","id":1.5}"#,
        r#"{"type":"rooms.list","id":"1"}"#,
        r#"{"type":"rooms.list","data":{"limit":-1}}"#,
        r#"{"type":"rooms.list","data":{"limit":"10"}}"#,
        r#"{"type":"rooms.list","data":[]}"#,
        r#"{"type":"room.get","data":["00000000-0000-0000-0000-000000000001"]}"#,
        r#"{"type":"nope","data":{}}"#,
        r#"{"type":"presence.set","data":{"state":"offline"}}"#,
        r#"{"type":"presence.subscribe","data":{}}"#,
        r#"{"type":"auth"}"#,
        r#"{"type":"auth","data":{}}"#,
        r#"{"type":"auth","data":{"token":7}}"#,
        r#"{"type":"auth","data":{"token":"t","resume":{"epoch":"e"}}}"#,
        r#"{"type":"auth","data":{"token":"t","resume":{"epoch":"e","rooms":{"x":"7"}}}}"#,
        r#"{"type":"room.get","data":{"room_id":"x"}}"#,
        r#"{"id":1}"#,
        "[]",
        "7",
    ] {
        check(broken, false);
    }
    let mute =
        |rest: &str| format!(r#"{{"id":1,"type":"room.mute","data":{{"room_id":"{id}"{rest}}}}}"#);
    check(&mute(""), true);
    check(&mute(r#","until":null"#), true);
    check(&mute(r#","until":"9999-12-31T23:59:59.999Z""#), true);
    check(&mute(r#","until":"2030-01-02T03:04:05Z""#), false);
    check(&mute(r#","until":1"#), false);
    let receipts =
        |rooms: &str| format!(r#"{{"type":"receipt.read","data":{{"rooms":{{{rooms}}}}}}}"#);
    check(&receipts(""), true);
    check(&receipts(&format!(r#""{id}":0"#)), true);
    check(&receipts(&format!(r#""{id}":-1"#)), false);
    check(&receipts(&format!(r#""{id}":null"#)), false);
    let send = |rest: &str| {
        format!(r#"{{"id":1,"type":"message.send","data":{{"room_id":"{id}",{rest}}}}}"#)
    };
    let named = format!(r#""client_msg_id":"{id}""#);
    check(&send(&format!(r#"{named},"kind":"text","text":"x""#)), true);
    check(
        &send(&format!(r#"{named},"kind":"video","text":"x""#)),
        false,
    );
    check(&send(&format!(r#"{named},"text":"x""#)), false);
    check(
        &send(r#""client_msg_id":"1","kind":"text","text":"x""#),
        false,
    );
    check(
        &send(&format!(r#"{named},"kind":"text","reply_to_seq":-1"#)),
        false,
    );
}

#[test]
fn frames_that_the_document_does_not_know_are_refused() {
    let ack = reply::ack(
        1,
        &RoomGot {
            room: room(),
            own: own(),
        },
    );
    let extra = ack.replace("\"room\":", "\"mine\":1,\"room\":");
    assert!(validate_reply("room.get", &extra).is_err(), "{extra}");
    assert!(
        validate_reply("room.create", &ack).is_err(),
        "a reply of another request"
    );
    assert!(validate_reply("pong", &ack).is_err(), "no reply is wanted");
    assert!(validate_reply("nope", &ack).is_err());
    for frame in durable_events() {
        assert!(validate_client_frame(&frame).is_err(), "{frame}");
        let no_seq = frame.replace("\"seq\":5,\"ts\"", "\"ts\"");
        assert_ne!(no_seq, frame);
        assert!(validate_server_frame(&no_seq).is_err(), "{no_seq}");
        let huge = frame.replace("\"seq\":5,\"ts\"", "\"seq\":9007199254740993,\"ts\"");
        assert!(validate_server_frame(&huge).is_err(), "{huge}");
        let time = frame.replace("2023-11-14T22:13:20.123Z", "2023-11-14T22:13:20Z");
        assert_ne!(time, frame);
        assert!(validate_server_frame(&time).is_err(), "{time}");
        let id = frame.replace("00000000-0000-0000-0000-000000000001", "1");
        assert_ne!(id, frame);
        assert!(validate_server_frame(&id).is_err(), "{id}");
    }
    for frame in [
        "",
        "{}",
        "{\"type\":\"typing.updated\"}",
        "{\"type\":\"ack\",\"id\":1}",
    ] {
        assert!(validate_server_frame(frame).is_err(), "{frame}");
    }
}

#[test]
fn the_document_lists_every_code() {
    let document = asyncapi::document();
    let errors = document["x-error-codes"].as_array().expect("a list");
    assert_eq!(errors.len(), ErrorCode::ALL.len());
    let codes: Vec<_> = document["x-close-codes"]
        .as_array()
        .expect("a list")
        .iter()
        .map(|code| code["code"].as_u64().expect("a number"))
        .collect();
    let expected = [
        1000, 1002, 1007, 1009, 4001, 4003, 4008, 4009, 4011, 4100, 4101, 4102, 4103, 4200, 4201,
        4202, 4203,
    ];
    assert_eq!(codes, expected);
}

#[test]
fn the_document_speaks_to_readers_without_the_source() {
    let text = asyncapi::document_text();
    assert!(!text.contains("crate::"), "a path of the source is left");
    assert!(!text.contains("\"uint"), "a type of Rust is left");
}

#[test]
fn the_committed_document_is_fresh() {
    let committed = std::fs::read_to_string("docs/asyncapi.json").unwrap_or_default();
    assert!(
        committed == asyncapi::document_text(),
        "out of date; run: cargo run -- asyncapi > docs/asyncapi.json"
    );
}

#[test]
fn the_committed_document_of_http_is_fresh() {
    let committed = std::fs::read_to_string("docs/openapi.json").unwrap_or_default();
    assert!(
        committed == openapi::document_text(),
        "out of date; run: cargo run -- openapi > docs/openapi.json"
    );
    assert!(
        !committed.contains("crate::"),
        "a path of the source is left"
    );
}
