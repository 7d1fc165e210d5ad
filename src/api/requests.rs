//! The HTTP API: each endpoint of [`http::ENDPOINTS`] is one request of the protocol, asked of a shard.
//!
//! Invariants: no rule of chat stands here; a request is asked once and its answer awaited no longer than
//! [`ANSWER_MAX`]; who has no valid token learns nothing else.

use super::Parts;
use super::problem::{Problem, too_large};
use crate::chat::port::{Answer, Asked, Decided, Identify, Identity, IdentityError};
use crate::limits;
use crate::protocol::http::{self, Bound, Given, Method};
use crate::protocol::openapi::Me;
use crate::protocol::request::{Command, Nothing, Refused};
use crate::protocol::{ErrorCode, UnixMs};
use axum::body::Bytes;
use axum::extract::rejection::{BytesRejection, RawPathParamsRejection};
use axum::extract::{Query, RawPathParams};
use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode, Uri, header};
use axum::response::{IntoResponse, Response};
use axum::routing::{MethodFilter, MethodRouter};
use serde::Deserialize;
use sonic_rs::{JsonValueTrait, LazyValue};
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};
use tokio::sync::oneshot;

/// Longest wait for a shard: it answers before, unless it does not run.
const ANSWER_MAX: Duration = Duration::from_millis(limits::ASK_MS_MAX + 1_000);
/// `Idempotency-Key`.
pub const IDEMPOTENCY_KEY: HeaderName = HeaderName::from_static("idempotency-key");
/// How many requests there may be in 10 s.
pub const RATE_LIMIT: HeaderName = HeaderName::from_static("ratelimit-limit");
/// How many more now.
pub const RATE_REMAINING: HeaderName = HeaderName::from_static("ratelimit-remaining");
/// When all are there again, s.
pub const RATE_RESET: HeaderName = HeaderName::from_static("ratelimit-reset");

/// The challenge to a token that is none.
pub(super) const INVALID: &str = "Bearer error=\"invalid_token\"";

const JSON: HeaderValue = HeaderValue::from_static("application/json");
const NO_STORE: HeaderValue = HeaderValue::from_static("no-store");

/// What the requests need of the node.
pub struct Requests {
    asks: Arc<super::Asks>,
    identify: Arc<dyn Identify>,
}

/// What came with a request, beside its path.
pub struct Came {
    /// The names in the path and their values.
    pub path: Result<RawPathParams, RawPathParamsRejection>,
    /// The whole target.
    pub uri: Uri,
    /// The headers.
    pub headers: HeaderMap,
    /// The body.
    pub body: Result<Bytes, BytesRejection>,
}

/// The filter of a method.
pub fn filter(method: Method) -> MethodFilter {
    match method {
        Method::Get => MethodFilter::GET,
        Method::Post => MethodFilter::POST,
        Method::Put => MethodFilter::PUT,
        Method::Patch => MethodFilter::PATCH,
        Method::Delete => MethodFilter::DELETE,
    }
}

/// All paths of the API, each with its methods.
pub(super) fn routes() -> Vec<(&'static str, MethodRouter<Arc<super::routes::Shared>>)> {
    let mut routes: Vec<(&'static str, MethodRouter<_>)> = Vec::new();
    for bound in http::bound() {
        let (path, method) = (bound.endpoint.path, filter(bound.endpoint.method));
        let bound = Arc::new(bound);
        let handler = move |axum::extract::State(shared): axum::extract::State<
            Arc<super::routes::Shared>,
        >,
                            path: Result<RawPathParams, RawPathParamsRejection>,
                            uri: Uri,
                            headers: HeaderMap,
                            body: Result<Bytes, BytesRejection>| {
            let came = Came {
                path,
                uri,
                headers,
                body,
            };
            let bound = bound.clone();
            async move { shared.requests.answer(&bound, came).await }
        };
        match routes.iter_mut().find(|(own, _)| *own == path) {
            Some((_, router)) => *router = std::mem::take(router).on(method, handler),
            None => routes.push((path, MethodRouter::new().on(method, handler))),
        }
    }
    routes
}

impl Requests {
    /// Asks these shards.
    pub fn new(parts: &Parts) -> Requests {
        Requests {
            asks: parts.asks.clone(),
            identify: parts.identify.clone(),
        }
    }

    /// Who asks.
    ///
    /// # Errors
    /// There is no valid token.
    pub async fn identity(&self, headers: &HeaderMap) -> Result<Identity, Problem> {
        let token = bearer(headers)?;
        match self.verdict(token).await {
            Ok(identity) => Ok(identity),
            Err(IdentityError::Invalid) => {
                Err(unauthenticated("the token is not accepted", INVALID))
            }
            Err(IdentityError::Expired) => Err(unauthenticated("the token has expired", INVALID)),
            Err(IdentityError::Unavailable) => Err(Problem::new(
                ErrorCode::Unavailable,
                "the token cannot be verified now",
            )),
        }
    }

    /// What becomes of a token, which may have to wait for whoever issued it.
    async fn verdict(&self, token: &str) -> Result<Identity, IdentityError> {
        let (sender, receiver) = oneshot::channel();
        let verdict = {
            let mut sender = Some(sender);
            let mut later = || -> Decided {
                let sender = sender.take();
                Box::new(move |verdict| {
                    if let Some(sender) = sender {
                        // Nobody waits any more: the request was given up.
                        let _late = sender.send(verdict);
                    }
                })
            };
            self.identify.identify(token, now(), &mut later)
        };
        match verdict {
            Some(verdict) => verdict,
            None => receiver.await.unwrap_or(Err(IdentityError::Unavailable)),
        }
    }

    /// `GET /v1/users/me`: what the token says, to whom any other request would be answered.
    ///
    /// # Errors
    /// There is no valid token, its session has ended, or no JSON is wanted.
    pub async fn me(&self, headers: &HeaderMap) -> Result<Response, Problem> {
        let identity = self.identity(headers).await?;
        wants_json(headers)?;
        let may_ask = Ok(Command::Pong(Nothing {}));
        let answer = self.asked(identity.clone(), may_ask).await?;
        reply_data(&answer.reply)?;
        let me = Me {
            user_id: identity.user,
            name: identity.name,
            picture: identity.picture,
            token_expires_at: identity.expires_at,
        };
        let body = serde_json::to_string(&me).unwrap_or_default();
        Ok(json(StatusCode::OK, body))
    }

    async fn answer(&self, bound: &Bound, came: Came) -> Result<Response, Problem> {
        let identity = self.identity(&came.headers).await?;
        wants_json(&came.headers)?;
        let body = body_of(bound, came.body, &came.headers)?;
        let command = command(
            bound,
            &came.path,
            &came.uri,
            &came.headers,
            &body,
            &identity,
        );
        let answer = self.asked(identity, command).await?;
        Ok(response(bound, &answer))
    }

    /// Asks a shard.
    async fn asked(
        &self,
        identity: Identity,
        command: Result<Command, Refused>,
    ) -> Result<Answer, Problem> {
        let (sender, receiver) = oneshot::channel();
        let asked = Asked {
            identity,
            command,
            done: Box::new(move |answer| {
                // Nobody waits any more: the answer came too late.
                let _late = sender.send(answer);
            }),
        };
        if !(self.asks)(asked) {
            let detail = "too many requests are waiting";
            return Err(Problem::new(ErrorCode::Overloaded, detail));
        }
        match tokio::time::timeout(ANSWER_MAX, receiver).await {
            Ok(Ok(answer)) => Ok(answer),
            Ok(Err(_)) | Err(_) => Err(Problem::new(
                ErrorCode::Unavailable,
                "no answer in time; retry with the same id",
            )),
        }
    }
}

/// The token of a request.
pub(super) fn bearer(headers: &HeaderMap) -> Result<&str, Problem> {
    let mut given = headers.get_all(header::AUTHORIZATION).iter();
    let (Some(value), None) = (given.next(), given.next()) else {
        let detail = "one `Authorization: Bearer <token>` is needed";
        return Err(unauthenticated(detail, "Bearer"));
    };
    let token = value
        .to_str()
        .ok()
        .and_then(|value| value.split_once(' '))
        .filter(|(scheme, _)| scheme.eq_ignore_ascii_case("bearer"))
        .map(|(_, token)| token.trim());
    token.ok_or_else(|| {
        let detail = "the scheme of `Authorization` must be Bearer";
        unauthenticated(detail, "Bearer")
    })
}

/// The body of a request, if it may be one.
pub(super) fn body_of(
    bound: &Bound,
    body: Result<Bytes, BytesRejection>,
    headers: &HeaderMap,
) -> Result<Bytes, Problem> {
    let body = body.map_err(|rejection| match rejection.status() {
        StatusCode::PAYLOAD_TOO_LARGE => too_large(),
        _ => Problem::new(ErrorCode::BadRequest, "the body did not come whole"),
    })?;
    if bound.takes_body() && !body.is_empty() {
        is_json(headers)?;
    }
    Ok(body)
}

fn refused(message: &str) -> Refused {
    Refused {
        code: ErrorCode::BadRequest,
        message: message.to_owned(),
    }
}

/// The names in a path with their values.
pub(super) fn path_values(
    path: &Result<RawPathParams, RawPathParamsRejection>,
) -> Result<Vec<(String, String)>, Refused> {
    let path = path
        .as_ref()
        .map_err(|_| refused("the path is not UTF-8"))?;
    let values = path.iter();
    Ok(values
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
        .collect())
}

/// The names in a query with their values.
pub(super) fn query_values(uri: &Uri) -> Result<Vec<(String, String)>, Refused> {
    let query = Query::<Vec<(String, String)>>::try_from_uri(uri);
    query
        .map(|query| query.0)
        .map_err(|_| refused("the query cannot be read"))
}

fn command(
    bound: &Bound,
    path: &Result<RawPathParams, RawPathParamsRejection>,
    uri: &Uri,
    headers: &HeaderMap,
    body: &[u8],
    identity: &Identity,
) -> Result<Command, Refused> {
    let path = path_values(path)?;
    let query = query_values(uri)?;
    let mut keys = headers.get_all(IDEMPOTENCY_KEY).iter();
    let key = match (keys.next(), keys.next()) {
        (None, _) => None,
        (Some(key), None) => Some(
            key.to_str()
                .map_err(|_| refused("`Idempotency-Key` is not ASCII"))?,
        ),
        (Some(_), Some(_)) => return Err(refused("more than one `Idempotency-Key`")),
    };
    let given = Given {
        path: &path,
        query: &query,
        body,
        key,
    };
    bound.command(&given, identity.user, uuid::Uuid::now_v7())
}

pub(super) fn unauthenticated(detail: &str, challenge: &'static str) -> Problem {
    Problem::new(ErrorCode::Unauthenticated, detail).header(header::WWW_AUTHENTICATE, challenge)
}

/// A reply as a connection would get it.
#[derive(Deserialize)]
struct Reply<'a> {
    #[serde(borrow, default)]
    data: Option<LazyValue<'a>>,
    #[serde(default)]
    error: Option<ReplyError>,
}

#[derive(Deserialize)]
struct ReplyError {
    code: String,
    message: String,
    #[serde(default)]
    retry_after_ms: Option<u64>,
}

impl From<ReplyError> for Problem {
    fn from(error: ReplyError) -> Problem {
        let code = ErrorCode::ALL
            .iter()
            .find(|code| code.name() == error.code)
            .copied()
            .unwrap_or(ErrorCode::Internal);
        match code {
            // The account is gone, or its sessions have ended.
            ErrorCode::Unauthenticated => unauthenticated(&error.message, INVALID),
            code => Problem::new(code, error.message).retry_after_ms(error.retry_after_ms),
        }
    }
}

/// The data of a reply as a connection would get it.
///
/// # Errors
/// It is an error.
pub(super) fn reply_data(reply: &str) -> Result<serde_json::Value, Problem> {
    let confused = || Problem::new(ErrorCode::Internal, "try again");
    match sonic_rs::from_str::<Reply<'_>>(reply) {
        Ok(Reply {
            error: Some(error), ..
        }) => Err(error.into()),
        Ok(Reply {
            data: Some(data), ..
        }) => serde_json::from_str(data.as_raw_str()).map_err(|_| confused()),
        Ok(Reply { .. }) | Err(_) => Err(confused()),
    }
}

fn response(bound: &Bound, answer: &Answer) -> Response {
    let mut response = match sonic_rs::from_str::<Reply<'_>>(&answer.reply) {
        Ok(Reply {
            error: Some(error), ..
        }) => Problem::from(error).into_response(),
        Ok(Reply { data: Some(_), .. }) if bound.endpoint.reply().is_empty() => {
            (StatusCode::ACCEPTED, [(header::CACHE_CONTROL, NO_STORE)]).into_response()
        }
        Ok(Reply {
            data: Some(data), ..
        }) => {
            let is_new = bound.endpoint.made_if.is_some_and(|(field, value)| {
                data.get(field).and_then(|own| own.as_bool()) == Some(value)
            });
            let status = match is_new {
                true => StatusCode::CREATED,
                false => StatusCode::OK,
            };
            json(status, data.as_raw_str().to_owned())
        }
        Ok(Reply { .. }) | Err(_) => {
            tracing::error!("a shard answered what is no reply");
            Problem::new(ErrorCode::Internal, "try again").into_response()
        }
    };
    if let Some(left) = answer.left {
        let headers = response.headers_mut();
        headers.insert(RATE_LIMIT, HeaderValue::from(left.limit));
        headers.insert(RATE_REMAINING, HeaderValue::from(left.remaining));
        let reset = left.full_in_ms.div_ceil(1_000);
        headers.insert(RATE_RESET, HeaderValue::from(reset));
    }
    response
}

pub(super) fn json(status: StatusCode, body: String) -> Response {
    let headers = [
        (header::CONTENT_TYPE, JSON),
        (header::CACHE_CONTROL, NO_STORE),
    ];
    (status, headers, body).into_response()
}

/// Whether the body is said to be JSON, as it is.
pub(super) fn is_json(headers: &HeaderMap) -> Result<(), Problem> {
    let said = headers
        .get(header::CONTENT_TYPE)
        .and_then(|value| value.to_str().ok())
        .and_then(|value| value.split(';').next())
        .is_some_and(|kind| kind.trim().eq_ignore_ascii_case("application/json"));
    if !said {
        let detail = "the body must be application/json";
        return Err(Problem::new(ErrorCode::UnsupportedMedia, detail));
    }
    if headers.contains_key(header::CONTENT_ENCODING) {
        let detail = "the body must not be encoded";
        return Err(Problem::new(ErrorCode::UnsupportedMedia, detail));
    }
    Ok(())
}

/// Whether an answer in JSON is of use (RFC 9110, section 12.5.1). Weights are not compared: there is one
/// form.
pub(super) fn wants_json(headers: &HeaderMap) -> Result<(), Problem> {
    let mut accepts = headers.get_all(header::ACCEPT).iter().peekable();
    if accepts.peek().is_none() {
        return Ok(());
    }
    let takes = |range: &str| {
        let mut parts = range.split(';').map(str::trim);
        let kind = parts.next().unwrap_or_default().to_ascii_lowercase();
        let fits = matches!(
            kind.as_str(),
            "*/*" | "application/*" | "application/json" | "application/problem+json"
        );
        let refused = parts
            .filter_map(|part| part.split_once('='))
            .any(|(name, value)| {
                name.trim().eq_ignore_ascii_case("q")
                    && value
                        .trim()
                        .parse::<f32>()
                        .is_ok_and(|weight| weight == 0.0)
            });
        fits && !refused
    };
    let any = accepts
        .filter_map(|value| value.to_str().ok())
        .any(|value| value.trim().is_empty() || value.split(',').any(takes));
    match any {
        true => Ok(()),
        false => Err(
            Problem::new(ErrorCode::BadRequest, "answers are application/json")
                .status(StatusCode::NOT_ACCEPTABLE),
        ),
    }
}

pub(super) fn now() -> UnixMs {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    // A clock before 1970 finds every token not yet valid.
    UnixMs(since.map_or(0, |since| since.as_millis() as u64))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn json_is_given_to_whoever_takes_it() {
        for (accept, taken) in [
            ("*/*", true),
            ("application/json", true),
            ("APPLICATION/JSON;charset=utf-8", true),
            ("text/html, application/*;q=0.1", true),
            ("application/problem+json", true),
            ("", true),
            ("text/html", false),
            ("application/json;q=0", false),
            ("application/xml, text/*", false),
            ("nonsense", false),
        ] {
            let mut headers = HeaderMap::new();
            headers.insert(header::ACCEPT, HeaderValue::from_static(accept));
            assert_eq!(wants_json(&headers).is_ok(), taken, "{accept:?}");
        }
        assert!(wants_json(&HeaderMap::new()).is_ok());
    }
}
