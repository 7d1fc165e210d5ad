//! What other services tell us by webhooks: the events of the Map Service and of the Main App.
//!
//! Whether they are who they say is known before. An event of a type that is not known is no error: a sender may
//! tell more than we want to know.

use super::ids::{JSON_INTEGER_MAX, RoomId, UserId};
use super::time::UnixMs;
use crate::limits;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Who sends webhooks.
#[derive(
    Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Deserialize, Serialize, JsonSchema,
)]
pub enum WebhookSource {
    /// The Map Service.
    #[serde(rename = "map")]
    Map,
    /// The Main App.
    #[serde(rename = "main-app")]
    MainApp,
}

impl WebhookSource {
    /// All of them.
    pub const ALL: &[WebhookSource] = &[WebhookSource::Map, WebhookSource::MainApp];

    /// As it stands in paths and in the store.
    pub fn name(self) -> &'static str {
        match self {
            WebhookSource::Map => "map",
            WebhookSource::MainApp => "main-app",
        }
    }

    /// The one of this name.
    pub fn of_name(name: &str) -> Option<WebhookSource> {
        let own = |source: &&WebhookSource| source.name() == name;
        WebhookSource::ALL.iter().find(own).copied()
    }
}

/// An invite that was accepted: two people who are to meet.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct InviteAccepted {
    /// The Map Service's name for the invite.
    pub invite_id: String,
    /// Who invited.
    pub inviter: UserId,
    /// Who accepted.
    pub invitee: UserId,
    /// What the meetup is called, as far as a room can be.
    pub title: Option<String>,
}

impl InviteAccepted {
    /// The one room of this invite.
    pub fn room(&self) -> RoomId {
        RoomId::invited(WebhookSource::Map.name(), &self.invite_id)
    }
}

/// What the Main App says of an account.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct AccountEvent {
    /// Whose.
    pub user: UserId,
    /// Rises with each event of this user.
    pub version: u64,
    /// When, if it is said.
    pub at: Option<UnixMs>,
    /// What.
    pub change: AccountChange,
}

/// What becomes of an account.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum AccountChange {
    /// It is called so. The whole profile: what is not said is not there.
    Profile {
        /// The name; `None`: it stays.
        name: Option<String>,
        /// The picture; `None`: there is none.
        picture: Option<String>,
        /// Whether it is suspended; `None`: that stays.
        suspended: Option<bool>,
    },
    /// It may not be used for now.
    Suspended,
    /// It is gone for good.
    Deleted,
    /// The tokens of a session are no good any more.
    SessionRevoked {
        /// Which; `None`: of all that began so far.
        sid: Option<String>,
        /// When the last of its tokens ends, if that is known.
        expires_at: Option<UnixMs>,
    },
}

/// An event, or why there is none.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Heard<T> {
    /// The event.
    Event(T),
    /// Of a type that is not known.
    OtherType,
}

/// Why a body is no event, for the developer of the sender.
pub type Malformed = &'static str;

#[derive(Deserialize)]
struct Envelope {
    r#type: String,
    #[serde(default)]
    timestamp: Option<String>,
    data: serde_json::Value,
}

#[derive(Deserialize)]
struct InviteIn {
    invite_id: String,
    inviter_id: UserId,
    invitee_id: UserId,
    #[serde(default)]
    title: Option<String>,
}

#[derive(Deserialize)]
struct AccountIn {
    user_id: UserId,
    version: u64,
    #[serde(default)]
    name: Option<String>,
    #[serde(default)]
    picture: Option<String>,
    #[serde(default)]
    suspended: Option<bool>,
    #[serde(default)]
    sid: Option<String>,
    #[serde(default)]
    expires_at: Option<UnixMs>,
}

/// Names of the events that the Map Service sends.
pub const MAP_EVENTS: &[&str] = &["meetup.invite.accepted"];
/// Names of the events that the Main App sends.
pub const MAIN_APP_EVENTS: &[&str] = &[
    "user.created",
    "user.updated",
    "user.suspended",
    "user.deleted",
    "session.revoked",
];

fn envelope(body: &[u8]) -> Result<Envelope, Malformed> {
    serde_json::from_slice(body).map_err(|_| "the body must be {\"type\":\"…\",\"data\":{…}}")
}

/// Reads an event of the Map Service.
///
/// # Errors
/// [`Malformed`].
pub fn of_map(body: &[u8]) -> Result<Heard<InviteAccepted>, Malformed> {
    let envelope = envelope(body)?;
    if !MAP_EVENTS.contains(&envelope.r#type.as_str()) {
        return Ok(Heard::OtherType);
    }
    let given: InviteIn = serde_json::from_value(envelope.data)
        .map_err(|_| "`data` must have invite_id, inviter_id and invitee_id")?;
    let id_chars = given.invite_id.chars().count();
    if id_chars == 0 || id_chars > limits::INVITE_ID_CHARS_MAX || given.invite_id.contains('\0') {
        return Err("`invite_id` must have 1 to 200 characters, and no U+0000");
    }
    if given.inviter_id == given.invitee_id {
        return Err("nobody accepts an invite of their own");
    }
    Ok(Heard::Event(InviteAccepted {
        invite_id: given.invite_id,
        inviter: given.inviter_id,
        invitee: given.invitee_id,
        title: given.title.and_then(|title| short(&title)),
    }))
}

/// A time in UTC with any number of digits of a second.
fn time_of(text: &str) -> Option<UnixMs> {
    let text = text.strip_suffix('Z')?;
    let (seconds, fraction) = text.split_once('.').unwrap_or((text, ""));
    let ms: String = fraction.chars().chain("000".chars()).take(3).collect();
    UnixMs::parse(&format!("{seconds}.{ms}Z"))
}

/// As much of a text as a title or a name can be; `None`: nothing of it.
fn short(text: &str) -> Option<String> {
    let kept = text.trim().chars().filter(|c| *c != '\0');
    let kept: String = kept.take(limits::TITLE_CHARS_MAX).collect();
    let kept = kept.trim();
    (!kept.is_empty()).then(|| kept.to_owned())
}

/// Reads an event of the Main App.
///
/// # Errors
/// [`Malformed`].
pub fn of_main_app(body: &[u8]) -> Result<Heard<AccountEvent>, Malformed> {
    let envelope = envelope(body)?;
    let name = envelope.r#type.as_str();
    if !MAIN_APP_EVENTS.contains(&name) {
        return Ok(Heard::OtherType);
    }
    let given: AccountIn = serde_json::from_value(envelope.data)
        .map_err(|_| "`data` must have user_id and version, and what else it has in its type")?;
    if given.version > JSON_INTEGER_MAX {
        return Err("`version` must be at most 2^53");
    }
    let at = envelope.timestamp.as_deref().and_then(time_of);
    let change = match name {
        "user.created" | "user.updated" => AccountChange::Profile {
            name: given.name.and_then(|name| short(&name)),
            picture: match given.picture {
                Some(picture)
                    if picture.len() > limits::PICTURE_BYTES_MAX || picture.contains('\0') =>
                {
                    return Err("`picture` must have at most 2048 bytes, and no U+0000");
                }
                picture => picture.filter(|picture| !picture.is_empty()),
            },
            suspended: given.suspended,
        },
        "user.suspended" => AccountChange::Suspended,
        "user.deleted" => AccountChange::Deleted,
        _ => AccountChange::SessionRevoked {
            sid: match given.sid {
                Some(sid)
                    if sid.is_empty()
                        || sid.len() > limits::SID_BYTES_MAX
                        || sid.contains('\0') =>
                {
                    return Err("`sid` must have 1 to 256 bytes, and no U+0000");
                }
                sid => sid,
            },
            expires_at: given.expires_at,
        },
    };
    Ok(Heard::Event(AccountEvent {
        user: given.user_id,
        version: given.version,
        at,
        change,
    }))
}

/// What the Map Service is answered.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, JsonSchema)]
pub struct WebhookInvited {
    /// The room of the invite; null: there is none, and asking again is of no use.
    pub room_id: Option<RoomId>,
    /// Whether this made it.
    pub created: bool,
}

/// What the Main App is answered.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, JsonSchema)]
pub struct WebhookApplied {
    /// Whether it changed anything; not if something newer was known.
    pub applied: bool,
}

#[cfg(test)]
mod tests {
    use super::*;

    const ADA: &str = "6f1c1f9e-6d8e-4c39-9a67-0d3f0f7d9a11";
    const BOB: &str = "6f1c1f9e-6d8e-4c39-9a67-0d3f0f7d9a12";

    fn map(data: &str) -> Result<Heard<InviteAccepted>, Malformed> {
        let data = data.replace("ADA", ADA).replace("BOB", BOB);
        of_map(format!(r#"{{"type":"meetup.invite.accepted","data":{data}}}"#).as_bytes())
    }

    #[test]
    fn an_invite_is_read() {
        let invite = map(
            r#"{"invite_id":"i1","inviter_id":"ADA","invitee_id":"BOB","title":" Coffee ",
                "place":{"lat":52.5,"lon":13.4}}"#,
        );
        let Ok(Heard::Event(invite)) = invite else {
            panic!("{invite:?}");
        };
        assert_eq!(invite.title.as_deref(), Some("Coffee"));
        let other = InviteAccepted {
            invite_id: "i2".to_owned(),
            ..invite.clone()
        };
        assert_ne!(invite.room(), other.room());
        let renamed = InviteAccepted {
            title: None,
            ..invite.clone()
        };
        assert_eq!(invite.room(), renamed.room());
        for wrong in [
            r#"{"invite_id":"","inviter_id":"ADA","invitee_id":"BOB"}"#,
            r#"{"invite_id":7,"inviter_id":"ADA","invitee_id":"BOB"}"#,
            r#"{"invite_id":"i","inviter_id":"ADA","invitee_id":"ADA"}"#,
            r#"{"invite_id":"i","inviter_id":"ada","invitee_id":"BOB"}"#,
            r#"{"invite_id":"i","inviter_id":"ADA"}"#,
            "[]",
        ] {
            assert!(map(wrong).is_err(), "{wrong}");
        }
        let other = of_map(br#"{"type":"meetup.cancelled","data":7}"#);
        assert_eq!(other, Ok(Heard::OtherType));
        assert!(of_map(b"{}").is_err());
    }

    #[test]
    fn a_time_has_any_number_of_digits() {
        for (text, ms) in [
            ("1970-01-01T00:00:01Z", Some(1_000)),
            ("1970-01-01T00:00:01.5Z", Some(1_500)),
            ("1970-01-01T00:00:01.234567Z", Some(1_234)),
            ("1970-01-01T00:00:01+00:00", None),
            ("1970-01-01", None),
            ("", None),
        ] {
            assert_eq!(time_of(text), ms.map(UnixMs), "{text}");
        }
    }

    #[test]
    fn an_account_is_read() {
        let read = |name: &str, more: &str| {
            let body =
                format!(r#"{{"type":"{name}","data":{{"user_id":"{ADA}","version":3{more}}}}}"#);
            match of_main_app(body.as_bytes()) {
                Ok(Heard::Event(event)) => Ok(event.change),
                Ok(Heard::OtherType) => panic!("{name} is known"),
                Err(malformed) => Err(malformed),
            }
        };
        let profile = AccountChange::Profile {
            name: Some("Ada".to_owned()),
            picture: None,
            suspended: Some(false),
        };
        let more = r#","name":"Ada","picture":null,"suspended":false"#;
        assert_eq!(read("user.updated", more), Ok(profile.clone()));
        assert_eq!(read("user.created", more), Ok(profile));
        assert_eq!(read("user.suspended", ""), Ok(AccountChange::Suspended));
        assert_eq!(read("user.deleted", ""), Ok(AccountChange::Deleted));
        let revoked = AccountChange::SessionRevoked {
            sid: Some("s".to_owned()),
            expires_at: Some(UnixMs(0)),
        };
        let more = r#","sid":"s","expires_at":"1970-01-01T00:00:00.000Z""#;
        assert_eq!(read("session.revoked", more), Ok(revoked));
        assert!(read("session.revoked", r#","sid":"""#).is_err());
        assert!(read("session.revoked", r#","sid":7"#).is_err());
        for (more, fits) in [
            ("s".repeat(256), true),
            ("s".repeat(257), false),
            (r"a\u0000b".to_owned(), false),
        ] {
            let more = format!(r#","sid":"{more}""#);
            assert_eq!(read("session.revoked", &more).is_ok(), fits, "{more}");
        }
        assert!(read("user.updated", r#","name":7"#).is_err());
        assert_eq!(
            of_main_app(br#"{"type":"user.renamed","data":{}}"#),
            Ok(Heard::OtherType)
        );
    }
}
