//! Who may do what: every role, in both kinds of room, on one's own and on another's message, written
//! down here once more and asked of every store.

use crate::harness::*;
use caffis_chat::chat::access::{Action, least_role, may};
use caffis_chat::chat::port::*;
use caffis_chat::protocol::view::{Role, RoomKind};
use caffis_chat::protocol::{ErrorCode, RoomId, Seq};

const OWNER: u128 = 1;
const ADMIN: u128 = 2;
const MEMBER: u128 = 3;
const OTHER: u128 = 4;
const FORMER: u128 = 5;
const STRANGER: u128 = 6;

/// What is asked, and who may in a direct room and in a group: `m`ember, `a`dmin, `o`wner.
const TABLE: &[(&str, &str, &str)] = &[
    ("send", "m", "mao"),
    ("mention a member", "m", "mao"),
    ("mention all", "", "ao"),
    ("edit own", "m", "mao"),
    ("edit another's", "", ""),
    ("delete own", "m", "mao"),
    ("delete another's", "", "ao"),
    ("react", "m", "mao"),
    ("unreact", "m", "mao"),
    ("pin", "m", "ao"),
    ("unpin", "m", "ao"),
    ("report", "m", "mao"),
    ("edit a system message", "", ""),
    ("delete a system message", "", ""),
    ("react to a system message", "", ""),
    ("pin a system message", "", ""),
    ("report a system message", "", ""),
    ("add", "", "ao"),
    ("remove a member", "", "ao"),
    ("remove an admin", "", "o"),
    ("remove the owner", "", ""),
    ("make an admin", "", "o"),
    ("make an owner", "", "o"),
    ("set the title", "", "ao"),
    ("leave", "", "mao"),
];

/// A room with a message of the actor and one of another member, for one question.
struct Place<'a> {
    backend: &'a Backend,
    room: RoomId,
    actor: u128,
    other: u128,
    next_id: u128,
}

impl Place<'_> {
    fn message_of(&mut self, sender: u128) -> Seq {
        self.next_id += 1;
        let message = send(self.room, sender, self.next_id, "here");
        sent(&self.backend.done(message)).0
    }

    fn own(&mut self) -> Seq {
        // Who is no member has none.
        match self.backend.role(self.room, self.actor) {
            Some(_) => self.message_of(self.actor),
            None => self.message_of(self.other),
        }
    }

    fn question(&mut self, what: &str) -> Op {
        let (room, actor, other) = (self.room, self.actor, self.other);
        match what {
            "send" => send(room, actor, 900, "hello"),
            "mention a member" => mentioning(room, actor, 900, "hello", [other]),
            "mention all" => mentioning(room, actor, 900, "hello", [0, other]),
            "edit own" => edit(room, actor, self.own(), "edited"),
            "edit another's" => edit(room, actor, self.message_of(other), "edited"),
            "delete own" => delete(room, actor, self.own()),
            "delete another's" => delete(room, actor, self.message_of(other)),
            "react" => react(room, actor, self.message_of(other), "👍"),
            "unreact" => unreact(room, actor, self.message_of(other), "👍"),
            "pin" => pin(room, actor, self.message_of(other)),
            "unpin" => change(room, actor, self.message_of(other), MessageChange::Unpin),
            "report" => change(room, actor, self.message_of(other), MessageChange::Report),
            "edit a system message" => edit(room, actor, 1, "edited"),
            "delete a system message" => delete(room, actor, 1),
            "react to a system message" => react(room, actor, 1, "👍"),
            "pin a system message" => pin(room, actor, 1),
            "report a system message" => change(room, actor, 1, MessageChange::Report),
            "add" => add(room, actor, [STRANGER]),
            "remove a member" => remove(room, actor, [OTHER]),
            "remove an admin" => remove(room, actor, [if actor == ADMIN { 7 } else { ADMIN }]),
            "remove the owner" => remove(room, actor, [if actor == OWNER { 8 } else { OWNER }]),
            "make an admin" => set_role(room, actor, [OTHER], Role::Admin),
            "make an owner" => set_role(room, actor, [OTHER], Role::Owner),
            "set the title" => set_title(room, actor, Some("Tea")),
            "leave" => leave(room, actor),
            _ => panic!("{what} is no question"),
        }
    }
}

/// A group with an owner, two admins and two members; 5 was one.
fn group(backend: &Backend, name: u128) -> RoomId {
    let room = group_id(OWNER, name);
    backend.done(create_group(OWNER, name, [ADMIN, MEMBER, OTHER, FORMER, 7]));
    backend.done(set_role(room, OWNER, [ADMIN, 7], Role::Admin));
    backend.done(remove(room, OWNER, [FORMER]));
    room
}

#[test]
fn who_may_do_what() {
    for backend in Backend::all() {
        backend.users(8);
        let direct = RoomId::direct(user(MEMBER), user(OTHER));
        backend.done(create_direct(MEMBER, OTHER));
        let mut name = 0;
        for (what, in_direct, in_group) in TABLE {
            for actor in [OWNER, ADMIN, MEMBER, FORMER, STRANGER] {
                for kind in [RoomKind::Direct, RoomKind::Group] {
                    name += 1;
                    let (room, letter) = match kind {
                        RoomKind::Direct if actor == MEMBER => (direct, "m"),
                        RoomKind::Direct => (direct, "-"),
                        RoomKind::Group => {
                            let letters = [(OWNER, "o"), (ADMIN, "a"), (MEMBER, "m")];
                            let letter = letters.iter().find(|(who, _)| *who == actor);
                            (
                                group(&backend, name),
                                letter.map_or("-", |(_, letter)| letter),
                            )
                        }
                    };
                    // Nobody can remove themselves by these, so the owner asks nothing about owners.
                    if *what == "remove the owner" && actor == OWNER {
                        continue;
                    }
                    let mut place = Place {
                        backend: &backend,
                        room,
                        actor,
                        other: OTHER,
                        next_id: name * 1_000,
                    };
                    let mut op = place.question(what);
                    if let OpKind::Send { client_msg_id, .. } = &mut op.kind {
                        client_msg_id.0 = uuid::Uuid::from_u128(name * 1_000 + 999);
                    }
                    let allowed = match kind {
                        RoomKind::Direct => in_direct.contains(letter),
                        RoomKind::Group => in_group.contains(letter),
                    };
                    let outcome = backend.one(op);
                    // One who left is told that they did.
                    let left = *what == "leave" && actor == FORMER && kind == RoomKind::Group;
                    match outcome {
                        Ok(_) if allowed || left => (),
                        Err(refusal) if !allowed && refusal.code == ErrorCode::Forbidden => (),
                        other => panic!("{what} by {actor} in a {kind:?}: {other:?}"),
                    }
                }
            }
        }
    }
}

#[test]
fn the_table_is_the_same_for_all_stores() {
    let actions = [
        ("send", Action::Send),
        ("mention all", Action::MentionAll),
        ("edit own", Action::EditOwn),
        ("edit another's", Action::EditOther),
        ("delete own", Action::DeleteOwn),
        ("delete another's", Action::DeleteOther),
        ("react", Action::React),
        ("pin", Action::Pin),
        ("report", Action::Report),
        ("add", Action::AddMembers),
        ("remove a member", Action::RemoveMembers),
        ("make an admin", Action::SetRole),
        ("set the title", Action::UpdateRoom),
        ("leave", Action::Leave),
    ];
    assert_eq!(actions.len(), Action::ALL.len(), "a row for each action");
    for (what, action) in actions {
        let row = TABLE.iter().find(|(name, ..)| *name == what);
        let (_, in_direct, in_group) = row.expect("a row");
        for (kind, letters) in [(RoomKind::Direct, in_direct), (RoomKind::Group, in_group)] {
            // In a direct room all are plain members.
            let roles = match kind {
                RoomKind::Direct => vec![(Role::Member, "m")],
                RoomKind::Group => {
                    vec![(Role::Member, "m"), (Role::Admin, "a"), (Role::Owner, "o")]
                }
            };
            for (role, letter) in roles {
                assert_eq!(
                    may(role, kind, action),
                    letters.contains(letter),
                    "{what} {role:?}"
                );
                let least = least_role(kind, action);
                assert_eq!(
                    least.is_some_and(|least| role >= least),
                    letters.contains(letter)
                );
            }
        }
    }
}
