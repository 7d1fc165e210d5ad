//! Decides what a new connection is from the first bytes of its stream, and answers an upgrade.
//!
//! Invariants: pure: bytes in, bytes out; what is not for us is known after eleven bytes at most
//! and goes to the control plane untouched; a head above its limit is refused, whole or not.
//!
//! Next: an upgraded stream goes to [`super::read`], another to the control plane.

use crate::limits;
use crate::protocol::network::{self, Network};
use crate::protocol::{CloseCode, websocket};
use std::net::IpAddr;
use tungstenite::error::{Error, ProtocolError};
use tungstenite::handshake::machine::TryParse;
use tungstenite::handshake::server::{Request, create_response, write_response};
use tungstenite::http::HeaderValue;
use tungstenite::http::header::{HOST, ORIGIN, SEC_WEBSOCKET_PROTOCOL};

/// The subprotocol that clients must offer.
pub const SUBPROTOCOL: &str = "caffis.chat.v1";
/// How subprotocols of other versions begin; what follows is short, and of letters, digits and dots.
const FAMILY: &str = "caffis.chat.";
const VERSION_BYTES_MAX: usize = 16;

/// How every request for us begins.
const START: &[u8] = b"GET /v1/ws";

/// Whose pages may connect. A client that is no browser sends no origin and is let in: what it
/// may do is decided by its token.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum AllowedOrigins {
    /// The server's own host, and pages from this machine. For development.
    SameHostOrLoopback,
    /// These only, each `scheme://host[:port]` in lower case without a path.
    List(Vec<String>),
}

/// What a connection is.
#[derive(PartialEq, Eq, Debug)]
pub enum Head {
    /// Not known yet.
    Incomplete,
    /// A WebSocket: send `response`; from `head_bytes` on the bytes are its stream.
    Upgrade {
        /// Length of the request, bytes.
        head_bytes: usize,
        /// The answer.
        response: Vec<u8>,
    },
    /// Somebody else's: the control plane goes on with the bytes received.
    Http,
    /// For us, but not like this: answer and close.
    Refused(Refused),
    /// Of another version of our protocol: send `response`, which ends with the close frame that says so, and close.
    /// A page is not shown the status of an upgrade that failed, but the code of a close.
    Outdated {
        /// The answer and the close frame.
        response: Vec<u8>,
    },
}

/// Why a connection is refused before it becomes a WebSocket.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Refused {
    /// Not a request, or not one for an upgrade that we speak.
    BadRequest,
    /// Upgraded by nothing, or to another version of WebSocket.
    UpgradeRequired,
    /// An origin that is not allowed.
    Forbidden,
    /// The request did not end in time.
    Timeout,
    /// The request is too long.
    TooLarge,
    /// As many connections as there may be, or the node stops.
    Overloaded,
    /// As many connections as one address may have.
    Crowded,
}

impl Refused {
    /// The answer, whole.
    pub fn response(self) -> Vec<u8> {
        const UPGRADE: &str = "Upgrade: websocket\r\nSec-WebSocket-Version: 13\r\n";
        let (status, code, detail, headers) = match self {
            Refused::BadRequest => (
                "400 Bad Request",
                "bad_request",
                "no request for caffis.chat.v1",
                "",
            ),
            Refused::UpgradeRequired => (
                "426 Upgrade Required",
                "bad_request",
                "here is a WebSocket",
                UPGRADE,
            ),
            Refused::Forbidden => (
                "403 Forbidden",
                "forbidden",
                "not from pages of this origin",
                "",
            ),
            Refused::Timeout => (
                "408 Request Timeout",
                "bad_request",
                "the request did not end in time",
                "",
            ),
            Refused::TooLarge => (
                "431 Request Header Fields Too Large",
                "too_large",
                "the head is too long",
                "",
            ),
            Refused::Overloaded => (
                "503 Service Unavailable",
                "overloaded",
                "no more connections for now",
                "",
            ),
            Refused::Crowded => (
                "429 Too Many Requests",
                "rate_limited",
                "too many connections of this address",
                "",
            ),
        };
        let (retry, later) = match self {
            Refused::Overloaded => ("Retry-After: 5\r\n", r#","retry_after_ms":5000"#),
            Refused::Crowded => ("Retry-After: 30\r\n", r#","retry_after_ms":30000"#),
            _ => ("", ""),
        };
        let (number, title) = status.split_once(' ').unwrap_or((status, ""));
        let temporary = !later.is_empty();
        // Of the same shape as `protocol::openapi::Problem`.
        let body = format!(
            "{{\"type\":\"about:blank\",\"title\":\"{title}\",\"status\":{number},\"detail\":\"{detail}\",\
             \"code\":\"{code}\",\"temporary\":{temporary}{later}}}"
        );
        format!(
            "HTTP/1.1 {status}\r\nContent-Type: application/problem+json\r\nContent-Length: {}\r\n\
             {headers}{retry}Connection: close\r\n\r\n{body}",
            body.len()
        )
        .into_bytes()
    }
}

/// Reads what a connection has sent so far, of which the first `seen` bytes were looked at before.
pub fn read_head(bytes: &[u8], seen: usize, origins: &AllowedOrigins) -> Head {
    match bytes.get(START.len()) {
        None if START.starts_with(bytes) => return Head::Incomplete,
        Some(b' ' | b'?') if bytes.starts_with(START) => (),
        None | Some(_) => return Head::Http,
    }
    // A head that comes byte by byte is parsed once, not once a byte.
    let may_end = bytes[seen.saturating_sub(3).min(bytes.len())..]
        .windows(2)
        .any(|pair| pair == b"\n\r" || pair == b"\n\n");
    let parsed = if may_end {
        Request::try_parse(bytes)
    } else {
        Ok(None)
    };
    match parsed {
        Ok(Some((head_bytes, _))) if head_bytes > limits::HANDSHAKE_BYTES_MAX => {
            Head::Refused(Refused::TooLarge)
        }
        Ok(Some((head_bytes, request))) => match answer(&request, origins) {
            Ok(Answer::Welcome(response)) => Head::Upgrade {
                head_bytes,
                response,
            },
            Ok(Answer::Outdated(response)) => Head::Outdated { response },
            Err(refused) => Head::Refused(refused),
        },
        Ok(None) if bytes.len() >= limits::HANDSHAKE_BYTES_MAX => Head::Refused(Refused::TooLarge),
        Ok(None) => Head::Incomplete,
        Err(Error::Capacity(_)) => Head::Refused(Refused::TooLarge),
        Err(_) => Head::Refused(Refused::BadRequest),
    }
}

/// For whom a proxy of ours made this request, which is whole.
pub fn forwarded_for(bytes: &[u8], trusted: &[Network]) -> Option<IpAddr> {
    let (_, request) = Request::try_parse(bytes).ok()??;
    let mut lines = Vec::new();
    for line in request.headers().get_all("x-forwarded-for") {
        lines.push(line.to_str().ok()?);
    }
    network::forwarded_for(lines.into_iter(), trusted)
}

enum Answer {
    Welcome(Vec<u8>),
    Outdated(Vec<u8>),
}

fn answer(request: &Request, origins: &AllowedOrigins) -> Result<Answer, Refused> {
    if !origin_allowed(request, origins) {
        return Err(Refused::Forbidden);
    }
    let mut response = create_response(request).map_err(|error| match error {
        Error::Protocol(
            ProtocolError::MissingConnectionUpgradeHeader
            | ProtocolError::MissingUpgradeWebSocketHeader
            | ProtocolError::MissingSecWebSocketVersionHeader,
        ) => Refused::UpgradeRequired,
        _ => Refused::BadRequest,
    })?;
    let offered = || {
        let values = request.headers().get_all(SEC_WEBSOCKET_PROTOCOL).iter();
        values
            .filter_map(|value| value.to_str().ok())
            .flat_map(|value| value.split(','))
            .map(str::trim)
    };
    let is_ours = offered().any(|name| name == SUBPROTOCOL);
    let other = offered().find(|name| is_other_version(name));
    let chosen = match (is_ours, other) {
        (true, _) => Some(HeaderValue::from_static(SUBPROTOCOL)),
        (false, _) if cfg!(feature = "echo") => None,
        (false, Some(other)) => {
            Some(HeaderValue::from_str(other).map_err(|_| Refused::BadRequest)?)
        }
        (false, None) => return Err(Refused::BadRequest),
    };
    let is_outdated = !is_ours && chosen.is_some();
    if let Some(chosen) = chosen {
        response
            .headers_mut()
            .insert(SEC_WEBSOCKET_PROTOCOL, chosen);
    }
    let mut bytes = Vec::with_capacity(256);
    write_response(&mut bytes, &response).map_err(|_| Refused::BadRequest)?;
    if !is_outdated {
        return Ok(Answer::Welcome(bytes));
    }
    let code = CloseCode::VersionUnsupported;
    websocket::append_close(Some(code as u16), code.reason(), &mut bytes);
    Ok(Answer::Outdated(bytes))
}

/// A version of our protocol that is not spoken here.
fn is_other_version(name: &str) -> bool {
    name.strip_prefix(FAMILY).is_some_and(|version| {
        let is_version = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'.';
        (1..=VERSION_BYTES_MAX).contains(&version.len()) && version.bytes().all(is_version)
    })
}

fn origin_allowed(request: &Request, origins: &AllowedOrigins) -> bool {
    let mut given = request.headers().get_all(ORIGIN).iter();
    let origin = match (given.next(), given.next()) {
        (None, _) => return true,
        (Some(origin), None) => origin.to_str().ok(),
        (Some(_), Some(_)) => None,
    };
    let Some(origin) = origin.map(str::to_ascii_lowercase) else {
        return false;
    };
    let host = request.headers().get(HOST);
    origins.allow(&origin, host.and_then(|host| host.to_str().ok()))
}

impl AllowedOrigins {
    /// Whether pages of this origin, in lower case, may speak to a server that was called by this `Host`.
    pub fn allow(&self, origin: &str, host: Option<&str>) -> bool {
        match self {
            AllowedOrigins::List(list) => list.iter().any(|allowed| allowed == origin),
            AllowedOrigins::SameHostOrLoopback => {
                let Some((_scheme, authority)) = origin.split_once("://") else {
                    return false;
                };
                host.is_some_and(|host| host.eq_ignore_ascii_case(authority))
                    || is_loopback(authority)
            }
        }
    }
}

fn is_loopback(authority: &str) -> bool {
    let host = match authority.rsplit_once(':') {
        Some((host, port)) if port.bytes().all(|byte| byte.is_ascii_digit()) => host,
        _ => authority,
    };
    let address = host
        .strip_prefix('[')
        .and_then(|host| host.strip_suffix(']'))
        .unwrap_or(host)
        .parse::<std::net::IpAddr>();
    match address {
        Ok(address) => address.is_loopback(),
        Err(_) => host == "localhost" || host.ends_with(".localhost"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const DEVELOPMENT: AllowedOrigins = AllowedOrigins::SameHostOrLoopback;

    fn request(lines: &[&str]) -> Vec<u8> {
        let mut lines = lines.to_vec();
        if lines.first().is_none_or(|line| !line.starts_with("GET")) {
            lines.insert(0, "GET /v1/ws HTTP/1.1");
        }
        for line in [
            "Host: chat.example:8080",
            "Connection: keep-alive, Upgrade",
            "Upgrade: websocket",
            "Sec-WebSocket-Version: 13",
            "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==",
            "Sec-WebSocket-Protocol: caffis.chat.v1",
        ] {
            let name = line.split(':').next().unwrap_or_default();
            if !lines.iter().any(|other| other.starts_with(name)) {
                lines.push(line);
            }
        }
        lines.retain(|line| !line.ends_with('~'));
        format!("{}\r\n\r\n", lines.join("\r\n")).into_bytes()
    }

    fn check(lines: &[&str], origins: &AllowedOrigins, expected: Option<Refused>) {
        let bytes = request(lines);
        let head = read_head(&bytes, 0, origins);
        match (&head, expected) {
            (Head::Upgrade { head_bytes, .. }, None) => assert_eq!(*head_bytes, bytes.len()),
            (Head::Refused(refused), Some(expected)) => assert_eq!(*refused, expected),
            _ => panic!("{lines:?}: {head:?}"),
        }
        // And the same when it comes byte by byte.
        let mut step = Head::Incomplete;
        for length in 1..=bytes.len() {
            step = read_head(&bytes[..length], length - 1, origins);
            // What can already be seen to be wrong is refused at once.
            if step != Head::Incomplete {
                break;
            }
        }
        assert_eq!(step, head);
    }

    #[test]
    fn an_upgrade_is_answered_as_the_specification_says() {
        let mut bytes = request(&[]);
        let length = bytes.len();
        bytes.extend_from_slice(b"\x81\x80 and more");
        let Head::Upgrade {
            head_bytes,
            response,
        } = read_head(&bytes, 0, &DEVELOPMENT)
        else {
            panic!("an upgrade");
        };
        assert_eq!(head_bytes, length);
        let response = String::from_utf8(response).expect("ascii");
        assert!(response.starts_with("HTTP/1.1 101 Switching Protocols\r\n"));
        let lower = response.to_ascii_lowercase();
        // The example of RFC 6455, section 1.3.
        assert!(response.contains("s3pPLMBiTxaQ9kYGzzhZRbK+xOo="));
        assert!(lower.contains("\r\nsec-websocket-protocol: caffis.chat.v1\r\n"));
        assert!(response.ends_with("\r\n\r\n"));
    }

    #[test]
    fn upgrades_that_are_not_spoken_here() {
        let bad = Some(Refused::BadRequest);
        let upgrade = Some(Refused::UpgradeRequired);
        for (line, expected) in [
            ("GET /v1/ws?x=1 HTTP/1.1", None),
            ("GET /v1/ws HTTP/1.0", bad),
            ("Connection: close", upgrade),
            ("Upgrade: h2c", upgrade),
            ("Sec-WebSocket-Version: 8", upgrade),
            ("Sec-WebSocket-Key: short", bad),
            ("Sec-WebSocket-Key: ~", bad),
            ("Sec-WebSocket-Protocol: chat, caffis.chat.v1", None),
            ("no colon", bad),
        ] {
            check(&[line], &DEVELOPMENT, expected);
        }
        if !cfg!(feature = "echo") {
            check(&["Sec-WebSocket-Protocol: ~"], &DEVELOPMENT, bad);
            let long = format!("Sec-WebSocket-Protocol: caffis.chat.v{}", "2".repeat(16));
            for line in [
                "Sec-WebSocket-Protocol: caffis.chat.",
                "Sec-WebSocket-Protocol: caffis.chat.v/2",
                "Sec-WebSocket-Protocol: other.chat.v2",
                &long,
            ] {
                check(&[line], &DEVELOPMENT, bad);
            }
        }
    }

    #[test]
    #[cfg(not(feature = "echo"))]
    fn another_version_of_ours_is_told_so_by_a_close_that_pages_see() {
        let bytes = request(&["Sec-WebSocket-Protocol: chat, caffis.chat.v2, caffis.chat.v3"]);
        let Head::Outdated { response } = read_head(&bytes, 0, &DEVELOPMENT) else {
            panic!("another version");
        };
        let (head, frame) = response.split_at(response.len() - 23);
        let head = String::from_utf8_lossy(head).to_ascii_lowercase();
        assert!(head.starts_with("http/1.1 101 "), "{head}");
        assert!(head.contains("\r\nsec-websocket-protocol: caffis.chat.v2\r\n"));
        assert!(head.ends_with("\r\n\r\n"), "{head}");
        assert_eq!(frame, b"\x88\x15\x0f\xa9version_unsupported");
        // A page of another origin is told nothing, and who speaks ours too is welcome.
        let origin = request(&[
            "Origin: https://evil.example",
            "Sec-WebSocket-Protocol: caffis.chat.v2",
        ]);
        let head = read_head(&origin, 0, &DEVELOPMENT);
        assert_eq!(head, Head::Refused(Refused::Forbidden));
        let both = request(&["Sec-WebSocket-Protocol: caffis.chat.v2, caffis.chat.v1"]);
        let head = read_head(&both, 0, &DEVELOPMENT);
        assert!(matches!(head, Head::Upgrade { .. }));
    }

    #[test]
    fn origins() {
        let list = AllowedOrigins::List(vec!["https://caffis.example".to_owned()]);
        for (origin, development, listed) in [
            ("http://chat.example:8080", true, false),
            ("http://chat.example", false, false),
            ("http://localhost:5173", true, false),
            ("http://127.0.0.1", true, false),
            ("http://[::1]:3000", true, false),
            ("http://localhost.evil.example", false, false),
            ("http://127.0.0.1.evil.example", false, false),
            ("null", false, false),
            ("https://caffis.example", false, true),
            ("https://Caffis.Example", false, true),
            ("https://caffis.example.evil.example", false, false),
        ] {
            let line = format!("Origin: {origin}");
            let refused = |allowed: bool| (!allowed).then_some(Refused::Forbidden);
            check(&[&line], &DEVELOPMENT, refused(development));
            check(&[&line], &list, refused(listed));
        }
        check(&[], &list, None);
        let twice = ["Origin: http://localhost", "Origin: http://localhost"];
        check(&twice, &DEVELOPMENT, Some(Refused::Forbidden));
    }

    #[test]
    fn what_is_not_ours_is_known_at_once() {
        for (bytes, expected) in [
            ("", Head::Incomplete),
            ("G", Head::Incomplete),
            ("GET /v1/ws", Head::Incomplete),
            ("P", Head::Http),
            ("GET /", Head::Incomplete),
            ("GET / ", Head::Http),
            ("GET /v1/wss", Head::Http),
            ("GET /v1/ws/", Head::Http),
            ("POST /v1/ws HTTP/1.1\r\n\r\n", Head::Http),
            ("\x16\x03\x01", Head::Http),
        ] {
            assert_eq!(
                read_head(bytes.as_bytes(), 0, &DEVELOPMENT),
                expected,
                "{bytes:?}"
            );
        }
    }

    #[test]
    fn a_head_has_a_limit_whole_or_not() {
        let filler = format!("X: {}", "x".repeat(limits::HANDSHAKE_BYTES_MAX));
        let bytes = request(&[&filler]);
        let refused = Head::Refused(Refused::TooLarge);
        assert_eq!(read_head(&bytes, 0, &DEVELOPMENT), refused);
        let part = &bytes[..limits::HANDSHAKE_BYTES_MAX];
        assert_eq!(read_head(part, 0, &DEVELOPMENT), refused);
        let many: Vec<String> = (0..200).map(|n| format!("X{n}: y")).collect();
        let many: Vec<&str> = many.iter().map(String::as_str).collect();
        let head = read_head(&request(&many), 0, &DEVELOPMENT);
        assert!(matches!(head, Head::Refused(_)), "{head:?}");
    }

    #[test]
    fn every_refusal_is_a_whole_response() {
        for refused in [
            Refused::BadRequest,
            Refused::UpgradeRequired,
            Refused::Forbidden,
            Refused::Timeout,
            Refused::TooLarge,
            Refused::Overloaded,
        ] {
            let response = String::from_utf8(refused.response()).expect("ascii");
            let (head, body) = response.split_once("\r\n\r\n").expect("a blank line");
            assert!(head.contains(&format!("Content-Length: {}", body.len())));
            serde_json::from_str::<serde_json::Value>(body).expect("json");
        }
    }
}
