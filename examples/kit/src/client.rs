//! One HTTP/1.1 request on a connection of its own: enough for webhooks and key sets. Plain `http://`, since
//! the examples speak to services beside them; over a network, put TLS between (a proxy, a service mesh).

use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Bytes;
use hyper::header::{HeaderMap, HeaderName, HeaderValue};
use hyper::{Method, Request, Uri};
use hyper_util::rt::TokioIo;
use std::time::Duration;
use tokio::net::TcpStream;

/// Bytes of an answer at most.
const ANSWER_BYTES_MAX: usize = 1 << 20;

/// What was answered.
#[derive(Debug)]
pub struct Answer {
    pub status: u16,
    pub headers: HeaderMap,
    pub body: Vec<u8>,
}

impl Answer {
    /// The body as JSON, null if it is none.
    pub fn json(&self) -> serde_json::Value {
        serde_json::from_slice(&self.body).unwrap_or_default()
    }
}

/// Asks once.
///
/// # Errors
/// No whole answer within `timeout`, and why.
pub async fn request(
    method: Method,
    url: &str,
    headers: &[(&str, &str)],
    body: Vec<u8>,
    timeout: Duration,
) -> Result<Answer, String> {
    tokio::time::timeout(timeout, ask(method, url, headers, body))
        .await
        .map_err(|_| "no answer in time".to_owned())?
}

/// Asks for JSON with JSON; without a body if it is null.
///
/// # Errors
/// As [`request`].
pub async fn json(
    method: Method,
    url: &str,
    headers: &[(&str, &str)],
    body: &serde_json::Value,
) -> Result<Answer, String> {
    let bytes = if body.is_null() {
        Vec::new()
    } else {
        body.to_string().into_bytes()
    };
    let headers = [&[("content-type", "application/json")], headers].concat();
    request(method, url, &headers, bytes, Duration::from_secs(10)).await
}

async fn ask(
    method: Method,
    url: &str,
    headers: &[(&str, &str)],
    body: Vec<u8>,
) -> Result<Answer, String> {
    let uri: Uri = url.parse().map_err(|_| format!("{url} is no URL"))?;
    let authority = uri.authority().filter(|_| uri.scheme_str() == Some("http"));
    let authority = authority.ok_or_else(|| format!("{url} does not begin with http://"))?;
    let address = (authority.host(), authority.port_u16().unwrap_or(80));
    let stream = TcpStream::connect(address)
        .await
        .map_err(|error| error.to_string())?;
    let connected = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await;
    let (mut sender, connection) = connected.map_err(|error| error.to_string())?;
    tokio::spawn(connection);
    let path = uri.path_and_query().map_or("/", |path| path.as_str());
    let mut request = Request::new(Full::new(Bytes::from(body)));
    *request.method_mut() = method;
    *request.uri_mut() = path.parse().map_err(|_| format!("{path} is no path"))?;
    let all = [
        &[("host", authority.as_str()), ("connection", "close")],
        headers,
    ]
    .concat();
    for (name, value) in all {
        let name = HeaderName::from_bytes(name.as_bytes());
        match (name, HeaderValue::from_str(value)) {
            (Ok(name), Ok(value)) => request.headers_mut().insert(name, value),
            _ => return Err("a header has characters that none can have".to_owned()),
        };
    }
    let answer = sender
        .send_request(request)
        .await
        .map_err(|error| error.to_string())?;
    let (head, body) = answer.into_parts();
    let body = Limited::new(body, ANSWER_BYTES_MAX).collect().await;
    Ok(Answer {
        status: head.status.as_u16(),
        headers: head.headers,
        body: body.map_err(|error| error.to_string())?.to_bytes().to_vec(),
    })
}
