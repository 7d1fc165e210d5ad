//! Requests of ours to other services, by HTTP/1.1 over TCP or TLS.
//!
//! Invariants: a request has an end, whatever the other side does ([`limits::OUTBOUND_MS_MAX`]); no more of an
//! answer is taken than [`limits::OUTBOUND_BYTES_MAX`]; a redirect is an answer and never followed; nothing that was
//! sent or received is logged; where there is a [`Guard`], only addresses are connected to that it has seen and allows.

mod guard;

pub use guard::Guard;

use crate::limits;
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Bytes;
use hyper::client::conn::http1;
use hyper::header::{
    ACCEPT, CONTENT_TYPE, DATE, HOST, HeaderMap, HeaderName, HeaderValue, RETRY_AFTER, USER_AGENT,
};
use hyper::{Method, Request, Uri};
use hyper_util::rt::TokioIo;
use rustls::pki_types::ServerName;
use rustls::{ClientConfig, RootCertStore};
use std::sync::Arc;
use std::time::{Duration, SystemTime};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

/// Where requests go.
#[derive(Clone, Debug)]
pub struct Endpoint {
    uri: Uri,
    host: String,
    port: u16,
    tls: bool,
}

impl Endpoint {
    /// Of an `http:` or `https:` URL. Where it leads is not known before the first request.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn new(url: &str) -> Result<Endpoint, &'static str> {
        let uri: Uri = url.parse().map_err(|_| "it is no URL")?;
        let tls = match uri.scheme_str() {
            Some("https") => true,
            Some("http") => false,
            _ => return Err("it is neither http:// nor https://"),
        };
        let authority = uri.authority().ok_or("it names no host")?;
        if authority.as_str().contains('@') {
            return Err("it holds a password");
        }
        let host = authority.host().trim_matches(['[', ']']).to_owned();
        let port = authority.port_u16().unwrap_or(if tls { 443 } else { 80 });
        Ok(Endpoint {
            uri: uri.clone(),
            host,
            port,
            tls,
        })
    }
}

/// Makes requests.
#[derive(Clone)]
pub struct Client {
    tls: TlsConnector,
    guard: Option<Guard>,
}

/// What was answered.
#[derive(Clone, Debug)]
pub struct Answer {
    /// The status.
    pub status: u16,
    /// The body.
    pub body: Bytes,
    /// `Retry-After`, in seconds from the answer on.
    pub retry_after_s: Option<u64>,
}

/// Why there is no answer.
pub type Failure = &'static str;

impl Client {
    /// Trusts whom this machine trusts.
    ///
    /// # Errors
    /// TLS cannot be set up.
    pub fn new() -> Result<Client, rustls::Error> {
        let mut roots = RootCertStore::empty();
        // Without any, every TLS connection is refused, and that is told.
        let (added, passed_over) =
            roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
        tracing::debug!(added, passed_over, "certificates of this machine");
        // Named here: with two providers in the program rustls would not choose one.
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let config = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()?
            .with_root_certificates(roots)
            .with_no_client_auth();
        Ok(Client {
            tls: TlsConnector::from(Arc::new(config)),
            guard: None,
        })
    }

    /// The same, which goes only where this guard allows.
    pub fn guarded(self, guard: Guard) -> Client {
        Client {
            guard: Some(guard),
            ..self
        }
    }

    /// Posts JSON, with these headers, and waits for the whole answer.
    ///
    /// # Errors
    /// As [`Client::call`].
    pub async fn post_json(
        &self,
        endpoint: &Endpoint,
        headers: &[(&'static str, String)],
        body: Vec<u8>,
    ) -> Result<Answer, Failure> {
        let mut given = vec![(CONTENT_TYPE, HeaderValue::from_static("application/json"))];
        for (name, value) in headers {
            let value = HeaderValue::from_str(value).map_err(|_| "the request cannot be made")?;
            given.push((HeaderName::from_static(name), value));
        }
        self.call(endpoint, Method::POST, &given, body).await
    }

    /// A connection to the host, at an address that was looked at if there is a guard.
    async fn connect(&self, endpoint: &Endpoint) -> Result<TcpStream, Failure> {
        const NOBODY: Failure = "it cannot be reached";
        let target = (endpoint.host.as_str(), endpoint.port);
        let Some(guard) = &self.guard else {
            return TcpStream::connect(target).await.map_err(|_| NOBODY);
        };
        // Resolved once: what is connected to is what was looked at.
        let found = tokio::net::lookup_host(target).await.map_err(|_| NOBODY)?;
        let addresses: Vec<_> = found.collect();
        if addresses.is_empty() {
            return Err(NOBODY);
        }
        if !addresses.iter().all(|address| guard.allows(address.ip())) {
            return Err("its address is private, and not allowed by CAFFIS_WEBHOOK_ALLOW_CIDRS");
        }
        TcpStream::connect(&*addresses).await.map_err(|_| NOBODY)
    }

    /// Asks, and waits for the whole answer.
    ///
    /// # Errors
    /// [`Failure`]; whether the other side has done something is not known then.
    pub async fn call(
        &self,
        endpoint: &Endpoint,
        method: Method,
        headers: &[(HeaderName, HeaderValue)],
        body: Vec<u8>,
    ) -> Result<Answer, Failure> {
        let work = self.connect_and_ask(endpoint, method, headers, body);
        let time = Duration::from_millis(limits::OUTBOUND_MS_MAX);
        match tokio::time::timeout(time, work).await {
            Ok(answer) => answer,
            Err(_) => Err("it does not answer in time"),
        }
    }

    async fn connect_and_ask(
        &self,
        endpoint: &Endpoint,
        method: Method,
        headers: &[(HeaderName, HeaderValue)],
        body: Vec<u8>,
    ) -> Result<Answer, Failure> {
        let path = endpoint
            .uri
            .path_and_query()
            .map_or("/", |path| path.as_str());
        let host = endpoint.uri.authority().map_or("", |it| it.as_str());
        let mut request = Request::builder()
            .method(method)
            .uri(path)
            .header(HOST, host)
            .header(ACCEPT, "application/json")
            .header(
                USER_AGENT,
                concat!("caffis-chat/", env!("CARGO_PKG_VERSION")),
            );
        for (name, value) in headers {
            request = request.header(name, value);
        }
        let request = request
            .body(Full::new(Bytes::from(body)))
            .map_err(|_| "the request cannot be made")?;
        let stream = self.connect(endpoint).await?;
        if endpoint.tls {
            let name = ServerName::try_from(endpoint.host.clone())
                .map_err(|_| "its name can have no certificate")?;
            let stream = self
                .tls
                .connect(name, stream)
                .await
                .map_err(|_| "its certificate is not trusted")?;
            ask(stream, request).await
        } else {
            ask(stream, request).await
        }
    }
}

async fn ask<S>(stream: S, request: Request<Full<Bytes>>) -> Result<Answer, Failure>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    const BROKEN: Failure = "it does not speak HTTP";
    let (mut sender, connection) = http1::Builder::new()
        .max_buf_size(64 << 10)
        .handshake(TokioIo::new(stream))
        .await
        .map_err(|_| BROKEN)?;
    let exchange = async {
        let response = sender.send_request(request).await.map_err(|_| BROKEN)?;
        let status = response.status().as_u16();
        let retry_after_s = retry_after_s(response.headers(), SystemTime::now());
        let body = Limited::new(response.into_body(), limits::OUTBOUND_BYTES_MAX);
        let body = body
            .collect()
            .await
            .map_err(|_| "its answer is too long or broken")?;
        Ok(Answer {
            status,
            body: body.to_bytes(),
            retry_after_s,
        })
    };
    let mut connection = std::pin::pin!(connection);
    let mut exchange = std::pin::pin!(exchange);
    // The connection is driven here, so that giving up the request ends it too.
    tokio::select! {
        answer = &mut exchange => answer,
        _ = &mut connection => exchange.await,
    }
}

/// `Retry-After` (RFC 9110, 10.2.3): seconds, or a date in one of the three formats of HTTP, from which the answer's own
/// `Date` is taken, as the two clocks may differ; without one, `now`. A date that has passed is 0.
fn retry_after_s(headers: &HeaderMap, now: SystemTime) -> Option<u64> {
    let text = |name: HeaderName| headers.get(name)?.to_str().ok().map(str::trim);
    let asked = text(RETRY_AFTER)?;
    if asked.bytes().all(|byte| byte.is_ascii_digit()) {
        // More than a number can say is still a number; whoever waits has a bound.
        return (!asked.is_empty()).then(|| asked.parse().unwrap_or(u64::MAX));
    }
    let at = httpdate::parse_http_date(asked).ok()?;
    let from = text(DATE).and_then(|date| httpdate::parse_http_date(date).ok());
    let left = at.duration_since(from.unwrap_or(now)).unwrap_or_default();
    Some(
        left.as_millis()
            .div_ceil(1_000)
            .try_into()
            .unwrap_or(u64::MAX),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    /// 1994-11-06T08:49:37Z, the example of RFC 9110.
    const NOW_S: u64 = 784_111_777;

    fn told(retry_after: &'static str, date: Option<&'static str>) -> Option<u64> {
        let mut headers = HeaderMap::new();
        headers.insert(RETRY_AFTER, HeaderValue::from_static(retry_after));
        if let Some(date) = date {
            headers.insert(DATE, HeaderValue::from_static(date));
        }
        let now = SystemTime::UNIX_EPOCH + Duration::from_millis(NOW_S * 1_000 - 500);
        retry_after_s(&headers, now)
    }

    #[test]
    fn a_receiver_says_when_to_come_again_in_seconds_or_by_a_date() {
        for (said, seconds) in [
            ("0", Some(0)),
            (" 120 ", Some(120)),
            ("99999999999999999999999", Some(u64::MAX)),
            ("Sun, 06 Nov 1994 08:49:37 GMT", Some(1)),
            ("Sun, 06 Nov 1994 08:50:37 GMT", Some(61)),
            ("Sunday, 06-Nov-94 08:49:47 GMT", Some(11)),
            ("Sun Nov  6 08:49:57 1994", Some(21)),
            ("Sat, 05 Nov 1994 08:49:37 GMT", Some(0)),
            ("Fri, 31 Dec 9999 23:59:59 GMT", Some(252_618_189_023)),
            ("", None),
            ("-1", None),
            ("1.5", None),
            ("soon", None),
            ("Sun, 32 Nov 1994 08:49:37 GMT", None),
        ] {
            assert_eq!(told(said, None), seconds, "{said}");
        }
    }

    #[test]
    fn a_date_counts_from_the_date_of_the_answer_where_that_is_told() {
        let at = "Sun, 06 Nov 1994 08:50:37 GMT";
        assert_eq!(told(at, Some("Sun, 06 Nov 1994 08:50:07 GMT")), Some(30));
        assert_eq!(told(at, Some("some day")), Some(61));
        assert_eq!(told("7", Some("Sun, 06 Nov 1994 08:50:07 GMT")), Some(7));
    }
}
