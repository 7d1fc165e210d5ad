//! What every backend decides the same way when a user is erased: who stands where they stood, by which mark it
//! is known that they were there, and what is left of the events of a room that name them.
//!
//! The name of a user, their text and their id are taken out of every row but two: the event `user.erased` of
//! each of their rooms, by which clients know whose messages are gone, and, until all is done, the row in
//! `erasures` (docs/decisions/0021).

use super::common::{BodyHash, body_hash};
use crate::chat::port::{OpDone, OpReply};
use crate::protocol::event::RoomEvent;
use crate::protocol::view::Mention;
use crate::protocol::{RoomId, UserId};
use serde_json::Value;

/// By which it is known that this user was erased.
pub(super) fn mark_of(key: &[u8; 32], user: UserId) -> BodyHash {
    body_hash(key, |hash| {
        hash.text("erased user");
        hash.user(user);
    })
}

/// Who stands in this room where an erased user stood: nobody's id, which tells nothing without the key, and is
/// another one in each room.
pub(super) fn erased_as(key: &[u8; 32], room: RoomId, user: UserId) -> UserId {
    let hash = body_hash(key, |hash| {
        hash.text("erased author");
        hash.user(UserId(room.0));
        hash.user(user);
    });
    UserId(uuid::Builder::from_custom_bytes(hash).into_uuid())
}

/// A step of an erasure.
pub(super) fn done(done: bool, event: Option<RoomEvent>) -> OpDone {
    OpDone {
        reply: OpReply::Erased(done),
        events: event.into_iter().collect(),
    }
}

/// The event of a system message without this user: their id is the other one, their name is empty. `None`: it
/// does not name them, or says that they were erased.
pub(super) fn without(
    json: &str,
    user: UserId,
    erased_as: UserId,
) -> Result<Option<String>, String> {
    if !json.contains(&user.to_string()) {
        return Ok(None);
    }
    let mut event: Value = serde_json::from_str(json).map_err(|error| error.to_string())?;
    if event["type"] == "user.erased" && event["user_id"] == user.to_string() {
        return Ok(None);
    }
    replace(&mut event, &user.to_string(), &erased_as.to_string());
    Ok(Some(event.to_string()))
}

fn replace(value: &mut Value, user: &str, erased_as: &str) {
    match value {
        Value::String(text) if text == user => erased_as.clone_into(text),
        Value::Array(items) => items
            .iter_mut()
            .for_each(|item| replace(item, user, erased_as)),
        Value::Object(fields) => {
            if fields.get("user_id").is_some_and(|id| id == user)
                && let Some(name) = fields.get_mut("name")
            {
                *name = Value::String(String::new());
            }
            fields
                .values_mut()
                .for_each(|field| replace(field, user, erased_as));
        }
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => (),
    }
}

/// Mentions without this user.
pub(super) fn mentions_without(mentions: Vec<Mention>, user: UserId) -> Vec<Mention> {
    let named = Mention::User(user);
    mentions.into_iter().filter(|it| *it != named).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use uuid::Uuid;

    fn user(n: u128) -> UserId {
        UserId(Uuid::from_u128(n))
    }

    #[test]
    fn an_event_without_a_user_says_what_it_said() {
        let (ada, nobody) = (user(1), user(9));
        let check = |json: String, expected: Option<String>| {
            let left = without(&json, ada, nobody).expect("JSON");
            let value = |json: &str| serde_json::from_str::<Value>(json).expect("JSON");
            assert_eq!(
                left.as_deref().map(value),
                expected.as_deref().map(value),
                "{json}"
            );
        };
        check(
            format!(
                r#"{{"type":"member.joined","user_id":"{ada}","name":"Ada","actor_id":"{}"}}"#,
                user(2)
            ),
            Some(format!(
                r#"{{"type":"member.joined","user_id":"{nobody}","name":"","actor_id":"{}"}}"#,
                user(2)
            )),
        );
        let opened = |id: UserId, name: &str| {
            format!(
                r#"{{"type":"room.created","actor_id":"{id}","room":{{"title":"Ada","members":[
                    {{"user_id":"{id}","name":"{name}"}},{{"user_id":"{}","name":"Bob"}}]}}}}"#,
                user(2)
            )
        };
        check(opened(ada, "Ada"), Some(opened(nobody, "")));
        check(opened(user(3), "Ada"), None);
        check(
            format!(r#"{{"type":"user.erased","user_id":"{ada}"}}"#),
            None,
        );
    }

    #[test]
    fn who_stands_for_an_erased_user_is_another_in_each_room() {
        let key = [7; 32];
        let room = |n| RoomId(Uuid::from_u128(n));
        let as_in = |n| erased_as(&key, room(n), user(1));
        assert_eq!(as_in(1), as_in(1));
        assert_ne!(as_in(1), as_in(2));
        assert_ne!(as_in(1), erased_as(&key, room(1), user(2)));
        assert_ne!(mark_of(&key, user(1)), mark_of(&[8; 32], user(1)));
    }
}
