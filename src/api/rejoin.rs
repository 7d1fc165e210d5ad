//! A connection that was the control plane's and now becomes a WebSocket: a proxy keeps its
//! connections and sends the next user's upgrade over one that carried plain requests before.
//!
//! Invariants: only a request that a shard will recognise as its own is given back, so nothing
//! goes to and fro; the shard sees the bytes of the request, with its headers in their order of
//! name, and nothing of what came before it.
//!
//! Next: a shard, which treats it as a connection just accepted.

use axum::http::{Method, Request, Version, header};
use hyper::body::Body;
use std::net::TcpStream;

/// Where the connections go: takes one, with the bytes that were read of it; gives it back if
/// there is no shard or it has no room. Must not block.
pub type Rejoin = dyn Fn(TcpStream, Vec<u8>) -> Result<(), TcpStream> + Send + Sync;

/// The path of the WebSocket.
const PATH: &str = "/v1/ws";

/// The head of a request that wants to become a WebSocket, as bytes; `None` for any other.
pub(super) fn head<B: Body>(request: &Request<B>) -> Option<Vec<u8>> {
    let uri = request.uri();
    let wants = request.method() == Method::GET
        && request.version() == Version::HTTP_11
        && uri.path() == PATH
        && request.body().is_end_stream()
        && request
            .headers()
            .get_all(header::UPGRADE)
            .iter()
            .any(|value| value.as_bytes().eq_ignore_ascii_case(b"websocket"));
    if !wants {
        return None;
    }
    let target = uri.path_and_query().map_or(PATH, |target| target.as_str());
    let mut head = format!("GET {target} HTTP/1.1\r\n").into_bytes();
    for (name, value) in request.headers() {
        head.extend_from_slice(name.as_str().as_bytes());
        head.extend_from_slice(b": ");
        head.extend_from_slice(value.as_bytes());
        head.extend_from_slice(b"\r\n");
    }
    head.extend_from_slice(b"\r\n");
    Some(head)
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Whole(bool);

    impl Body for Whole {
        type Data = axum::body::Bytes;
        type Error = std::convert::Infallible;

        fn poll_frame(
            self: std::pin::Pin<&mut Self>,
            _: &mut std::task::Context<'_>,
        ) -> std::task::Poll<Option<Result<hyper::body::Frame<Self::Data>, Self::Error>>> {
            std::task::Poll::Ready(None)
        }

        fn is_end_stream(&self) -> bool {
            self.0
        }
    }

    fn request(method: &str, uri: &str, upgrade: &str) -> Request<Whole> {
        Request::builder()
            .method(method)
            .uri(uri)
            .header("host", "x")
            .header("upgrade", upgrade)
            .header("cookie", "a=1")
            .header("cookie", "b=2")
            .body(Whole(true))
            .expect("a request")
    }

    #[test]
    fn an_upgrade_is_written_down_as_it_came() {
        let bytes = head(&request("GET", "/v1/ws?x=1", "WebSocket")).expect("an upgrade");
        let text = String::from_utf8(bytes).expect("ascii");
        assert!(text.starts_with("GET /v1/ws?x=1 HTTP/1.1\r\n"), "{text}");
        assert!(text.ends_with("\r\n\r\n"), "{text}");
        for line in [
            "host: x",
            "upgrade: WebSocket",
            "cookie: a=1",
            "cookie: b=2",
        ] {
            assert!(text.contains(&format!("\r\n{line}\r\n")), "{text}");
        }
    }

    #[test]
    fn nothing_else_is_given_back() {
        for (method, uri, upgrade) in [
            ("POST", "/v1/ws", "websocket"),
            ("GET", "/v1/wss", "websocket"),
            ("GET", "/v1/ws/", "websocket"),
            ("GET", "/v1/ws", "h2c"),
        ] {
            assert_eq!(head(&request(method, uri, upgrade)), None, "{method} {uri}");
        }
        let mut with_body = request("GET", "/v1/ws", "websocket");
        *with_body.body_mut() = Whole(false);
        assert_eq!(head(&with_body), None);
    }
}
