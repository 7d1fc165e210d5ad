//! That sessions of a user end: what the store keeps of it, and nodes and shards tell each other.

use super::error::CloseCode;
use super::ids::UserId;
use super::time::UnixMs;
use uuid::Uuid;

/// Sessions of a user end: those that are there, and those that would begin.
///
/// A session began with the version that its sign-in read; what ends sessions raises the version in the same
/// transaction. So which session came before and which after is decided by the store, and by no clock.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct SessionsEnd {
    /// Whose.
    pub user: UserId,
    /// The version that was made by it, or [`SessionsEnd::FOR_GOOD`].
    pub version: u64,
    /// How they are closed.
    pub code: CloseCode,
    /// Which of them.
    pub which: EndsWhich,
}

/// Which sessions of a user end.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum EndsWhich {
    /// Those that began before the version.
    BeganBefore,
    /// Those of this session at the issuer of the tokens, by [`sid_hash`].
    OfSession(Uuid),
    /// Those whose token was issued until then; where it does not say when, those that began before the version.
    IssuedUntil(UnixMs),
}

/// What is to be known of a session to say whether it ends.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Began {
    /// The user's version at its sign-in.
    pub version: u64,
    /// `sid` of its token, by [`sid_hash`].
    pub sid: Option<Uuid>,
    /// `iat` of its token.
    pub issued_at: Option<UnixMs>,
}

impl SessionsEnd {
    /// A version that no user comes to: until it is taken back, no session begins.
    pub const FOR_GOOD: u64 = i64::MAX as u64;

    /// Whether this session is meant.
    pub fn ends(&self, began: &Began) -> bool {
        match self.which {
            EndsWhich::BeganBefore => began.version < self.version,
            EndsWhich::OfSession(sid) => began.sid == Some(sid),
            EndsWhich::IssuedUntil(until) => match began.issued_at {
                Some(issued_at) => issued_at <= until,
                None => began.version < self.version,
            },
        }
    }
}

/// Namespace of sessions at the issuer of the tokens (UUIDv5, RFC 9562 section 5.5).
const SID_NAMESPACE: Uuid = Uuid::from_u128(0x3b7e_60a1_54d2_4c0e_8f6b_9a51_d2c4_51d0);

/// The name of a session at the issuer, in a fixed length.
pub fn sid_hash(sid: &str) -> Uuid {
    Uuid::new_v5(&SID_NAMESPACE, sid.as_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_session_ends_by_its_version_its_name_or_the_age_of_its_token() {
        let end = |version, which| SessionsEnd {
            user: UserId(Uuid::from_u128(1)),
            version,
            code: CloseCode::Unauthenticated,
            which,
        };
        let began = |version, sid: Option<&str>, issued_s: Option<u64>| Began {
            version,
            sid: sid.map(sid_hash),
            issued_at: issued_s.map(|s| UnixMs(s * 1_000)),
        };
        let all = end(5, EndsWhich::BeganBefore);
        assert!(all.ends(&began(4, None, None)));
        assert!(!all.ends(&began(5, None, None)));
        let for_good = end(SessionsEnd::FOR_GOOD, EndsWhich::BeganBefore);
        assert!(for_good.ends(&began(u64::from(u32::MAX), None, Some(u64::from(u32::MAX)))));
        let one = end(
            SessionsEnd::FOR_GOOD,
            EndsWhich::OfSession(sid_hash("phone")),
        );
        assert!(one.ends(&began(9, Some("phone"), None)));
        assert!(!one.ends(&began(9, Some("laptop"), None)));
        assert!(!one.ends(&began(0, None, None)));
        let old = end(5, EndsWhich::IssuedUntil(UnixMs(7_000)));
        assert!(old.ends(&began(9, None, Some(7))));
        assert!(!old.ends(&began(4, None, Some(8))));
        assert!(old.ends(&began(4, None, None)));
        assert!(!old.ends(&began(5, None, None)));
    }
}
