//! Identifiers, as newtypes, and how room ids are derived.

use schemars::JsonSchema;
use serde::{Deserialize, Deserializer, Serialize};
use std::collections::BTreeMap;
use std::fmt;
use uuid::Uuid;

/// The place of an event in its room: 1, 2, 3, … without a gap; 0 is "before the first".
pub type Seq = u64;

/// The client's number of a request, echoed in its reply. At most 2^53, so that every JSON
/// implementation carries it whole.
pub type RequestId = u64;

/// Largest integer that JSON numbers carry exactly everywhere (RFC 8259, section 6).
pub const JSON_INTEGER_MAX: u64 = 1 << 53;

/// Reads an integer that every JSON implementation carries whole.
///
/// # Errors
/// It is none, or above [`JSON_INTEGER_MAX`].
pub(super) fn whole<'de, D: Deserializer<'de>>(deserializer: D) -> Result<u64, D::Error> {
    u64::deserialize(deserializer).and_then(is_whole)
}

/// The same of one that may be absent.
pub(super) fn whole_or_none<'de, D: Deserializer<'de>>(
    deserializer: D,
) -> Result<Option<u64>, D::Error> {
    let number = Option::<u64>::deserialize(deserializer)?;
    number.map(is_whole).transpose()
}

/// The same of one for each room.
pub(super) fn whole_by_room<'de, D: Deserializer<'de>>(
    deserializer: D,
) -> Result<BTreeMap<RoomId, Seq>, D::Error> {
    let seqs = BTreeMap::<RoomId, Seq>::deserialize(deserializer)?;
    for seq in seqs.values() {
        is_whole(*seq)?;
    }
    Ok(seqs)
}

fn is_whole<E: serde::de::Error>(number: u64) -> Result<u64, E> {
    match number <= JSON_INTEGER_MAX {
        true => Ok(number),
        false => Err(E::custom("a number is above 2^53")),
    }
}

macro_rules! uuid_id {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(
            Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize, JsonSchema,
        )]
        #[serde(transparent)]
        pub struct $name(pub Uuid);

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.fmt(f)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, concat!(stringify!($name), "({})"), self.0)
            }
        }

        impl std::str::FromStr for $name {
            type Err = uuid::Error;
            fn from_str(text: &str) -> Result<Self, uuid::Error> {
                Uuid::parse_str(text).map($name)
            }
        }
    };
}

uuid_id!(
    /// An account; the `sub` of its token.
    UserId
);
uuid_id!(
    /// A room.
    RoomId
);
uuid_id!(
    /// The sender's name for a message, unique for (room, sender) for good. UUIDv7 by custom.
    ClientMsgId
);

uuid_id!(
    /// A file that a user uploads, or uploaded.
    UploadId
);

/// Namespace of all room ids (UUIDv5, RFC 9562 section 5.5).
const ROOM_NAMESPACE: Uuid = Uuid::from_u128(0x6f0d_42c5_7d5c_4b0b_9d4c_1f6f_5b8a_c0de);

impl RoomId {
    /// The one direct room of a pair, whoever creates it: the primary key is the uniqueness.
    pub fn direct(a: UserId, b: UserId) -> RoomId {
        let (low, high) = if a <= b { (a, b) } else { (b, a) };
        Self::derive(b"direct", low.0, high.0)
    }

    /// The group that `creator` named `client_room_id`.
    pub fn group(creator: UserId, client_room_id: Uuid) -> RoomId {
        Self::derive(b"group", creator.0, client_room_id)
    }

    /// The one room of an invite, as whoever sent the invite calls it.
    pub fn invited(source: &str, invite_id: &str) -> RoomId {
        let name = ["invite", source, invite_id].join("\0");
        RoomId(Uuid::new_v5(&ROOM_NAMESPACE, name.as_bytes()))
    }

    fn derive(kind: &[u8], a: Uuid, b: Uuid) -> RoomId {
        let mut name = Vec::with_capacity(kind.len() + 32);
        name.extend_from_slice(kind);
        name.extend_from_slice(a.as_bytes());
        name.extend_from_slice(b.as_bytes());
        RoomId(Uuid::new_v5(&ROOM_NAMESPACE, &name))
    }

    /// The bucket of this room: the same on every node, whatever its shards.
    pub fn bucket(self) -> u16 {
        bucket(self.0)
    }
}

impl UserId {
    /// The bucket of this user: the same on every node, whatever its shards.
    pub fn bucket(self) -> u16 {
        bucket(self.0)
    }

    /// The relay's bucket by which nodes tell of this user's presence.
    pub fn presence_bucket(self) -> u16 {
        crate::limits::PRESENCE_BUCKET + self.bucket() % crate::limits::PRESENCE_BUCKETS
    }
}

/// Fibonacci hashing of the folded id: ids may come from outside, with little entropy in any
/// one part of them.
fn bucket(id: Uuid) -> u16 {
    let (high, low) = id.as_u64_pair();
    let mixed = (high ^ low.rotate_left(32)).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    (mixed >> 50) as u16 % crate::limits::BUCKETS
}

/// Identity of one history: made when the store is created and after every restore. A position
/// of another epoch means nothing.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Epoch(pub u64);

impl fmt::Display for Epoch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}

impl Serialize for Epoch {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl JsonSchema for Epoch {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "Epoch".into()
    }
    fn json_schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
        schemars::json_schema!({"type": "string"})
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pair_has_one_direct_room_in_either_order() {
        let (a, b) = (UserId(Uuid::from_u128(1)), UserId(Uuid::from_u128(2)));
        assert_eq!(RoomId::direct(a, b), RoomId::direct(b, a));
        assert_ne!(RoomId::direct(a, b).0, RoomId::group(a, b.0).0);
    }

    #[test]
    fn buckets_spread_over_the_shards() {
        let mut homes = [0u32; 4];
        for n in 0..40_000u128 {
            let room = RoomId::group(UserId(Uuid::from_u128(n)), Uuid::from_u128(7));
            homes[usize::from(room.bucket()) % 4] += 1;
        }
        assert!(
            homes.iter().all(|count| (9_500..10_500).contains(count)),
            "{homes:?}"
        );
    }
}
