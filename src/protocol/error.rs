//! Error codes of replies and close codes of connections: what each tells the client to do.

use schemars::JsonSchema;
use serde::Serialize;

macro_rules! error_codes {
    ($( $(#[$doc:meta])* $variant:ident $name:literal temporary: $temporary:literal, )*) => {
        /// Why a request was refused. A temporary one may be tried again, with the same ids.
        #[derive(Clone, Copy, PartialEq, Eq, Debug, Hash, Serialize, JsonSchema)]
        #[serde(rename_all = "snake_case")]
        pub enum ErrorCode { $( $(#[$doc])* $variant, )* }

        impl ErrorCode {
            /// All of them.
            pub const ALL: &[ErrorCode] = &[ $( ErrorCode::$variant, )* ];

            /// As it stands on the wire.
            pub fn name(self) -> &'static str {
                match self { $( ErrorCode::$variant => $name, )* }
            }

            /// Whether the same request can succeed later.
            pub fn temporary(self) -> bool {
                match self { $( ErrorCode::$variant => $temporary, )* }
            }
        }
    };
}

error_codes! {
    /// Not JSON, not of the request's shape, or a value out of range.
    BadRequest "bad_request" temporary: false,
    /// No such request.
    UnknownType "unknown_type" temporary: false,
    /// No valid token.
    Unauthenticated "unauthenticated" temporary: false,
    /// Known, but not allowed to this user.
    Forbidden "forbidden" temporary: false,
    /// Nothing has this id.
    NotFound "not_found" temporary: false,
    /// The same idempotency id was used with another body.
    IdempotencyConflict "idempotency_conflict" temporary: false,
    /// The message was edited meanwhile.
    RevisionConflict "revision_conflict" temporary: false,
    /// It was there and was removed.
    Gone "gone" temporary: false,
    /// Above a limit announced in `ready`.
    TooLarge "too_large" temporary: false,
    /// A type of file that is not taken.
    UnsupportedMedia "unsupported_media" temporary: false,
    /// More often than the limit announced in `ready`.
    RateLimited "rate_limited" temporary: true,
    /// The server has more to do than it can; says nothing about the outcome of a send.
    Overloaded "overloaded" temporary: true,
    /// The store did not answer; says nothing about the outcome.
    Unavailable "unavailable" temporary: true,
    /// Our own fault; says nothing about the outcome.
    Internal "internal" temporary: true,
}

/// How a connection ends. The range says what the client does: 4000–4099 stop, 4100–4199
/// reconnect after a while, 4200–4299 reconnect at once with `resume`.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash)]
#[repr(u16)]
pub enum CloseCode {
    /// RFC 6455: the close that we answer.
    Normal = 1000,
    /// RFC 6455: a rule of WebSocket itself was broken.
    ProtocolError = 1002,
    /// RFC 6455: text that is not UTF-8.
    InvalidPayload = 1007,
    /// RFC 6455: a message above `frame_bytes`.
    MessageTooBig = 1009,
    /// No `auth`, or a bad token.
    Unauthenticated = 4001,
    /// The user may not connect.
    Forbidden = 4003,
    /// A rule of the chat protocol was broken.
    ProtocolViolation = 4008,
    /// A version of the protocol that is not spoken here.
    VersionUnsupported = 4009,
    /// The account is gone.
    UserDeleted = 4011,
    /// Too much to do.
    Overloaded = 4100,
    /// Went on above the rate limit.
    RateLimited = 4101,
    /// The node stops.
    Draining = 4102,
    /// Too many connections of this user or address.
    ConnectionLimit = 4103,
    /// Did not read fast enough.
    SlowConsumer = 4200,
    /// Was not heard in time.
    PingTimeout = 4201,
    /// A new token is needed first.
    TokenExpired = 4202,
    /// The history was replaced.
    EpochChanged = 4203,
}

impl CloseCode {
    /// All of them.
    pub const ALL: &[CloseCode] = &[
        CloseCode::Normal,
        CloseCode::ProtocolError,
        CloseCode::InvalidPayload,
        CloseCode::MessageTooBig,
        CloseCode::Unauthenticated,
        CloseCode::Forbidden,
        CloseCode::ProtocolViolation,
        CloseCode::VersionUnsupported,
        CloseCode::UserDeleted,
        CloseCode::Overloaded,
        CloseCode::RateLimited,
        CloseCode::Draining,
        CloseCode::ConnectionLimit,
        CloseCode::SlowConsumer,
        CloseCode::PingTimeout,
        CloseCode::TokenExpired,
        CloseCode::EpochChanged,
    ];

    /// The code of this number, if there is one.
    pub fn from_number(number: u16) -> Option<CloseCode> {
        let own = |code: &&CloseCode| **code as u16 == number;
        CloseCode::ALL.iter().find(own).copied()
    }

    /// The reason sent with the code: its name in the protocol.
    pub fn reason(self) -> &'static str {
        match self {
            CloseCode::Normal => "",
            CloseCode::ProtocolError => "protocol_error",
            CloseCode::InvalidPayload => "invalid_payload",
            CloseCode::MessageTooBig => "message_too_big",
            CloseCode::Unauthenticated => "unauthenticated",
            CloseCode::Forbidden => "forbidden",
            CloseCode::ProtocolViolation => "protocol_violation",
            CloseCode::VersionUnsupported => "version_unsupported",
            CloseCode::UserDeleted => "user_deleted",
            CloseCode::Overloaded => "overloaded",
            CloseCode::RateLimited => "rate_limited",
            CloseCode::Draining => "draining",
            CloseCode::ConnectionLimit => "connection_limit",
            CloseCode::SlowConsumer => "slow_consumer",
            CloseCode::PingTimeout => "ping_timeout",
            CloseCode::TokenExpired => "token_expired",
            CloseCode::EpochChanged => "epoch_changed",
        }
    }

    /// Whether `server.closing` goes before it: the 41xx, which tell when to come back.
    pub fn announced(self) -> bool {
        (4100..4200).contains(&(self as u16))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_those_of_serde() {
        for code in ErrorCode::ALL {
            let json = sonic_rs::to_string(code).expect("a unit variant");
            assert_eq!(json, format!("\"{}\"", code.name()));
        }
    }
}
