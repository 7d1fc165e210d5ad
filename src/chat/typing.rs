//! Who is typing in the rooms that a shard is home to: a hint for people, never stored with messages.
//!
//! Invariants: what is told is the whole set, at most once per [`limits::TYPING_TELL_MS`] and room, and
//! only when it is another one; who said so once is forgotten after [`limits::TYPING_EXPIRES_MS`]
//! unless they say it again; a set that did not reach all who listen is told again; each node tells the others
//! of its own users only, so that nothing goes round in circles, and says it again while it lasts, so that what
//! is lost heals.
//!
//! Next: [`super::home`] tells the shards that listen, and other nodes.

use super::map::{Map, Seeded};
use crate::limits;
use crate::protocol::{RoomId, UserId};

/// The rooms in which somebody is typing.
#[derive(Debug)]
pub struct Typing {
    rooms: Map<RoomId, Room>,
    /// No sample is taken before, ms.
    sample_ms: u64,
}

#[derive(Debug, Default)]
struct Room {
    who: Vec<Who>,
    /// What was told last to those who listen here.
    told: Vec<UserId>,
    /// Some of those who listen here were not told it.
    lacking: bool,
    /// They are not told again before, ms.
    next_ms: u64,
    /// What was told last to other nodes.
    relayed: Vec<UserId>,
    /// When, ms.
    relayed_ms: u64,
}

#[derive(Debug)]
struct Who {
    user: UserId,
    /// The run of the node that says so; `None`: this one.
    origin: Option<u64>,
    until_ms: u64,
}

/// What is to be told of a room now.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Telling {
    /// To those who listen on this node: everybody who is typing, sorted.
    pub here: Option<Vec<UserId>>,
    /// To other nodes: the users of this one, sorted.
    pub elsewhere: Option<Vec<UserId>>,
}

impl Typing {
    /// Nobody is typing.
    pub fn new(seed: u64) -> Typing {
        Typing {
            rooms: Map::with_hasher(Seeded::with_seed(seed)),
            sample_ms: limits::TYPING_SAMPLE_MS,
        }
    }

    /// Users of this node who are typing, by room and user, and for how long still, ms; at most once in
    /// [`limits::TYPING_SAMPLE_MS`].
    pub fn sample(&mut self, now_ms: u64) -> Vec<(RoomId, UserId, u64)> {
        if now_ms < self.sample_ms {
            return Vec::new();
        }
        self.sample_ms = now_ms + limits::TYPING_SAMPLE_MS;
        let mut sample: Vec<(RoomId, UserId, u64)> = (self.rooms.iter())
            .flat_map(|(id, room)| room.who.iter().map(|who| (*id, who)))
            .filter(|(_, who)| who.origin.is_none() && who.until_ms > now_ms)
            .map(|(id, who)| (id, who.user, who.until_ms - now_ms))
            .take(limits::TYPING_SAMPLE_MAX)
            .collect();
        sample.sort_unstable();
        sample
    }

    /// A user of this node types, or stops.
    pub fn say(&mut self, room: RoomId, user: UserId, is_typing: bool, now_ms: u64) {
        if is_typing {
            let until_ms = now_ms + limits::TYPING_EXPIRES_MS;
            self.rooms
                .entry(room)
                .or_default()
                .note(user, None, until_ms);
        } else if let Some(room) = self.rooms.get_mut(&room) {
            room.who
                .retain(|who| who.user != user || who.origin.is_some());
        }
    }

    /// Another node says who of its users is typing.
    pub fn heard(&mut self, room: RoomId, origin: u64, users: Vec<UserId>, now_ms: u64) {
        if users.is_empty() && !self.rooms.contains_key(&room) {
            return;
        }
        let room = self.rooms.entry(room).or_default();
        room.who.retain(|who| who.origin != Some(origin));
        for user in users {
            room.note(user, Some(origin), now_ms + limits::TYPING_EXPIRES_MS);
        }
    }

    /// A user is no member any more, wherever they typed.
    pub fn left(&mut self, room: RoomId, user: UserId) {
        if let Some(room) = self.rooms.get_mut(&room) {
            room.who.retain(|who| who.user != user);
        }
    }

    /// The room is no longer held here.
    pub fn forget(&mut self, room: RoomId) {
        self.rooms.remove(&room);
    }

    /// Forgets every room.
    pub fn clear(&mut self) {
        self.rooms.clear();
    }

    /// The rooms to look at when time passes.
    pub fn rooms(&self) -> Vec<RoomId> {
        self.rooms.keys().copied().collect()
    }

    /// What was told last of a room did not reach all who listen.
    pub fn tell_again(&mut self, id: RoomId, now_ms: u64) {
        let room = self.rooms.entry(id).or_default();
        room.lacking = true;
        room.next_ms = now_ms + limits::TYPING_TELL_MS;
    }

    /// What is to be told of a room; taken as told.
    pub fn tell(&mut self, id: RoomId, now_ms: u64) -> Telling {
        let mut telling = Telling::default();
        let Some(room) = self.rooms.get_mut(&id) else {
            return telling;
        };
        room.who.retain(|who| who.until_ms > now_ms);
        if now_ms >= room.next_ms {
            let all = room.users(|_| true);
            if all != room.told || room.lacking {
                room.told.clone_from(&all);
                room.lacking = false;
                room.next_ms = now_ms + limits::TYPING_TELL_MS;
                telling.here = Some(all);
            }
            let own = room.users(|who| who.origin.is_none());
            let again_ms = room.relayed_ms + limits::TYPING_INTERVAL_MS;
            if own != room.relayed || !own.is_empty() && now_ms >= again_ms {
                room.relayed.clone_from(&own);
                room.relayed_ms = now_ms;
                telling.elsewhere = Some(own);
            }
        }
        let is_over = room.who.is_empty() && room.told.is_empty() && room.relayed.is_empty();
        if is_over && !room.lacking {
            self.rooms.remove(&id);
        }
        telling
    }
}

impl Room {
    fn note(&mut self, user: UserId, origin: Option<u64>, until_ms: u64) {
        let known = |who: &&mut Who| who.user == user && who.origin == origin;
        if let Some(who) = self.who.iter_mut().find(known) {
            who.until_ms = until_ms;
        } else if self.who.len() < limits::TYPING_USERS_MAX {
            self.who.push(Who {
                user,
                origin,
                until_ms,
            });
        }
    }

    fn users(&self, is_meant: impl Fn(&Who) -> bool) -> Vec<UserId> {
        let who = self.who.iter().filter(|who| is_meant(who));
        let mut users: Vec<UserId> = who.map(|who| who.user).collect();
        users.sort_unstable();
        users.dedup();
        users
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use uuid::Uuid;

    const ROOM: RoomId = RoomId(Uuid::from_u128(7));

    fn user(n: u128) -> UserId {
        UserId(Uuid::from_u128(n))
    }

    fn told(here: &[u128], elsewhere: Option<&[u128]>) -> Telling {
        let users = |ids: &[u128]| ids.iter().map(|id| user(*id)).collect();
        Telling {
            here: Some(users(here)),
            elsewhere: elsewhere.map(users),
        }
    }

    #[test]
    fn the_whole_set_is_told_once_and_not_again_too_soon() {
        let mut typing = Typing::new(1);
        typing.say(ROOM, user(2), true, 0);
        assert_eq!(typing.tell(ROOM, 0), told(&[2], Some(&[2])));
        typing.say(ROOM, user(1), true, 10);
        assert_eq!(typing.tell(ROOM, 10), Telling::default(), "too soon");
        typing.say(ROOM, user(2), true, 500);
        let later = limits::TYPING_TELL_MS;
        assert_eq!(typing.tell(ROOM, later), told(&[1, 2], Some(&[1, 2])));
        assert_eq!(typing.tell(ROOM, later * 2), Telling::default(), "the same");
    }

    #[test]
    fn a_sample_holds_who_types_here_and_comes_seldom() {
        let mut typing = Typing::new(1);
        let later = limits::TYPING_SAMPLE_MS;
        typing.say(ROOM, user(3), true, later - limits::TYPING_EXPIRES_MS);
        typing.say(ROOM, user(2), true, later - 10);
        typing.say(ROOM, user(1), true, later - 20);
        typing.heard(ROOM, 5, vec![user(4)], later - 10);
        assert_eq!(typing.sample(later - 1), []);
        let left = limits::TYPING_EXPIRES_MS;
        let expected = [(ROOM, user(1), left - 20), (ROOM, user(2), left - 10)];
        assert_eq!(typing.sample(later), expected);
        assert_eq!(typing.sample(later + 1), []);
    }

    #[test]
    fn who_starts_and_stops_between_two_tellings_costs_nothing() {
        let mut typing = Typing::new(1);
        typing.say(ROOM, user(1), true, 0);
        typing.tell(ROOM, 0);
        typing.say(ROOM, user(2), true, 100);
        typing.say(ROOM, user(2), false, 200);
        let later = limits::TYPING_TELL_MS;
        assert_eq!(typing.tell(ROOM, later), Telling::default());
    }

    #[test]
    fn who_says_nothing_more_is_forgotten_and_nothing_is_kept() {
        let mut typing = Typing::new(1);
        typing.say(ROOM, user(1), true, 0);
        typing.tell(ROOM, 0);
        let end = limits::TYPING_EXPIRES_MS;
        assert_eq!(typing.tell(ROOM, end - 1).here, None);
        assert_eq!(typing.tell(ROOM, end), told(&[], Some(&[])));
        assert!(typing.rooms().is_empty());
        typing.say(ROOM, user(1), true, end + 10);
        typing.tell(ROOM, end + 10);
        typing.left(ROOM, user(1));
        let later = end + 10 + limits::TYPING_TELL_MS;
        assert_eq!(typing.tell(ROOM, later), told(&[], Some(&[])));
    }

    #[test]
    fn nodes_tell_of_their_own_users_and_again_while_it_lasts() {
        let mut typing = Typing::new(1);
        typing.heard(ROOM, 9, vec![user(5)], 0);
        assert_eq!(typing.tell(ROOM, 0), told(&[5], None), "not passed on");
        typing.say(ROOM, user(5), true, 2_000);
        let again = typing.tell(ROOM, 2_000);
        assert_eq!((again.here, again.elsewhere), (None, Some(vec![user(5)])));
        typing.say(ROOM, user(5), true, 4_900);
        let again = typing.tell(ROOM, 2_000 + limits::TYPING_INTERVAL_MS);
        assert_eq!((again.here, again.elsewhere), (None, Some(vec![user(5)])));
        typing.say(ROOM, user(5), false, 5_500);
        let gone = typing.tell(ROOM, 5_500);
        assert_eq!(
            (gone.here, gone.elsewhere),
            (None, Some(vec![])),
            "still typing on the other node"
        );
        typing.heard(ROOM, 9, Vec::new(), 5_600);
        assert_eq!(typing.tell(ROOM, 5_600).here, Some(vec![]));
    }

    #[test]
    fn what_did_not_reach_everybody_is_told_again() {
        let mut typing = Typing::new(1);
        typing.say(ROOM, user(1), true, 0);
        typing.tell(ROOM, 0);
        typing.tell_again(ROOM, 0);
        let later = limits::TYPING_TELL_MS;
        assert_eq!(typing.tell(ROOM, later - 1), Telling::default(), "too soon");
        assert_eq!(typing.tell(ROOM, later).here, Some(vec![user(1)]));
        let end = limits::TYPING_EXPIRES_MS;
        assert_eq!(typing.tell(ROOM, end).here, Some(vec![]));
        // Nobody is typing any more, which somebody does not know.
        typing.tell_again(ROOM, end);
        assert_eq!(typing.rooms(), [ROOM]);
        assert_eq!(typing.tell(ROOM, end + later).here, Some(vec![]));
        assert!(typing.rooms().is_empty());
    }

    #[test]
    fn a_room_holds_no_more_than_may_be_told() {
        let mut typing = Typing::new(1);
        for n in 0..limits::TYPING_USERS_MAX as u128 + 50 {
            typing.say(ROOM, user(n), true, 0);
        }
        let here = typing.tell(ROOM, 0).here.expect("a set");
        assert_eq!(here.len(), limits::TYPING_USERS_MAX);
    }
}
