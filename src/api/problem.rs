//! Errors over HTTP: problem+json (RFC 9457), with the same codes as the wire protocol.

use crate::limits;
use crate::protocol::{ErrorCode, http, openapi};
use axum::http::{HeaderName, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};

/// What went wrong, as a client is told.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Problem {
    status: StatusCode,
    code: ErrorCode,
    detail: String,
    retry_after_ms: Option<u64>,
    headers: Vec<(HeaderName, &'static str)>,
}

impl Problem {
    /// A problem with the status that goes with its code.
    pub fn new(code: ErrorCode, detail: impl Into<String>) -> Problem {
        Problem {
            // Every status of a code is one that there is.
            status: StatusCode::from_u16(http::status(code)).unwrap_or_default(),
            code,
            detail: detail.into(),
            retry_after_ms: code.temporary().then_some(limits::RETRY_AFTER_MS),
            headers: Vec::new(),
        }
    }

    /// With another status.
    pub fn status(mut self, status: StatusCode) -> Problem {
        self.status = status;
        self
    }

    /// To be tried again after so many ms.
    pub fn retry_after_ms(mut self, ms: Option<u64>) -> Problem {
        self.retry_after_ms = ms;
        self
    }

    /// As it is told.
    pub fn body(&self) -> String {
        let body = openapi::Problem {
            r#type: "about:blank",
            title: self.status.canonical_reason().unwrap_or("Error").to_owned(),
            status: self.status.as_u16(),
            detail: self.detail.clone(),
            code: self.code,
            temporary: self.code.temporary(),
            retry_after_ms: self.retry_after_ms,
        };
        serde_json::to_string(&body).unwrap_or_default()
    }

    /// With this header.
    pub fn header(mut self, name: HeaderName, value: &'static str) -> Problem {
        self.headers.push((name, value));
        self
    }
}

/// A body above the limit.
pub fn too_large() -> Problem {
    let max = http::BODY_BYTES_MAX;
    Problem::new(ErrorCode::TooLarge, format!("a body may have {max} bytes"))
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let retry_after_ms = self.retry_after_ms;
        let body = self.body();
        let content_type = (header::CONTENT_TYPE, "application/problem+json");
        let cache = (header::CACHE_CONTROL, "no-store");
        let mut response = (self.status, [content_type, cache], body).into_response();
        if let Some(ms) = retry_after_ms {
            let seconds = HeaderValue::from(ms.div_ceil(1_000).max(1));
            response.headers_mut().insert(header::RETRY_AFTER, seconds);
        }
        for (name, value) in self.headers {
            let value = HeaderValue::from_static(value);
            response.headers_mut().insert(name, value);
        }
        // For whoever counts answers by code.
        response.extensions_mut().insert(self.code);
        response
    }
}
