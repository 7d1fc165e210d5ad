//! Errors over HTTP: problem+json (RFC 9457), with the same codes as the wire protocol.

use crate::limits;
use crate::protocol::ErrorCode;
use axum::http::{HeaderName, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde::Serialize;

/// What went wrong, as a client is told.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Problem {
    status: StatusCode,
    code: ErrorCode,
    detail: String,
    headers: Vec<(HeaderName, &'static str)>,
}

#[derive(Serialize)]
struct Body<'a> {
    /// RFC 9457: without a page that describes the problem its type is "about:blank".
    r#type: &'static str,
    title: &'a str,
    status: u16,
    detail: &'a str,
    code: &'static str,
    temporary: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    retry_after_ms: Option<u64>,
}

impl Problem {
    /// A problem with the status that goes with its code.
    pub fn new(code: ErrorCode, detail: impl Into<String>) -> Problem {
        Problem {
            status: status(code),
            code,
            detail: detail.into(),
            headers: Vec::new(),
        }
    }

    /// With another status.
    pub fn status(mut self, status: StatusCode) -> Problem {
        self.status = status;
        self
    }

    /// With this header.
    pub fn header(mut self, name: HeaderName, value: &'static str) -> Problem {
        self.headers.push((name, value));
        self
    }
}

fn status(code: ErrorCode) -> StatusCode {
    match code {
        ErrorCode::BadRequest | ErrorCode::UnknownType => StatusCode::BAD_REQUEST,
        ErrorCode::Unauthenticated => StatusCode::UNAUTHORIZED,
        ErrorCode::Forbidden => StatusCode::FORBIDDEN,
        ErrorCode::NotFound => StatusCode::NOT_FOUND,
        ErrorCode::IdempotencyConflict | ErrorCode::RevisionConflict => StatusCode::CONFLICT,
        ErrorCode::Gone => StatusCode::GONE,
        ErrorCode::TooLarge => StatusCode::PAYLOAD_TOO_LARGE,
        ErrorCode::UnsupportedMedia => StatusCode::UNSUPPORTED_MEDIA_TYPE,
        ErrorCode::RateLimited => StatusCode::TOO_MANY_REQUESTS,
        ErrorCode::Overloaded | ErrorCode::Unavailable => StatusCode::SERVICE_UNAVAILABLE,
        ErrorCode::Internal => StatusCode::INTERNAL_SERVER_ERROR,
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let retry_after_ms = self.code.temporary().then_some(limits::RETRY_AFTER_MS);
        let body = Body {
            r#type: "about:blank",
            title: self.status.canonical_reason().unwrap_or("Error"),
            status: self.status.as_u16(),
            detail: &self.detail,
            code: self.code.name(),
            temporary: self.code.temporary(),
            retry_after_ms,
        };
        let body = serde_json::to_string(&body).unwrap_or_default();
        let content_type = (header::CONTENT_TYPE, "application/problem+json");
        let cache = (header::CACHE_CONTROL, "no-store");
        let mut response = (self.status, [content_type, cache], body).into_response();
        if let Some(ms) = retry_after_ms {
            let seconds = HeaderValue::from(ms.div_ceil(1_000));
            response.headers_mut().insert(header::RETRY_AFTER, seconds);
        }
        for (name, value) in self.headers {
            let value = HeaderValue::from_static(value);
            response.headers_mut().insert(name, value);
        }
        response
    }
}
