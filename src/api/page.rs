//! The web client: a few files, built into the program, so that it is there wherever the server
//! is and always of its version.

use axum::body::Body;
use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use std::collections::hash_map::DefaultHasher;
use std::hash::Hasher;
use std::sync::LazyLock;

/// A file of the page.
pub struct PageFile {
    /// Where it is served.
    pub path: &'static str,
    content_type: &'static str,
    bytes: &'static [u8],
}

/// All of them.
pub static FILES: [PageFile; 6] = [
    PageFile {
        path: "/",
        content_type: "text/html; charset=utf-8",
        bytes: include_bytes!("../../web/dist/index.html"),
    },
    PageFile {
        path: "/app.js",
        content_type: "text/javascript; charset=utf-8",
        bytes: include_bytes!("../../web/dist/app.js"),
    },
    PageFile {
        path: "/style.css",
        content_type: "text/css; charset=utf-8",
        bytes: include_bytes!("../../web/dist/style.css"),
    },
    PageFile {
        path: "/v1/docs",
        content_type: "text/html; charset=utf-8",
        bytes: include_bytes!("../../web/dist/docs.html"),
    },
    PageFile {
        path: "/v1/docs.js",
        content_type: "text/javascript; charset=utf-8",
        bytes: include_bytes!("../../web/dist/docs.js"),
    },
    PageFile {
        path: "/v1/docs.css",
        content_type: "text/css; charset=utf-8",
        bytes: include_bytes!("../../web/dist/docs.css"),
    },
];

/// One tag for the whole page: its files belong together, and a changed one changes all.
static TAG: LazyLock<String> = LazyLock::new(|| {
    let mut hasher = DefaultHasher::new();
    for file in &FILES {
        hasher.write(file.bytes);
    }
    format!("\"{:016x}\"", hasher.finish())
});

/// What the page may do: load its own files and speak to its own server; by their origins, ask the Main App for
/// tokens, and bring files to where they are kept and show them from there (and from the page itself, before they
/// are sent). Text of messages can then do no harm even if it got into the page as markup.
pub fn policy(main_app: Option<&str>, files: &[String]) -> HeaderValue {
    let files: String = files.iter().map(|origin| format!(" {origin}")).collect();
    let main_app = main_app.map(|origin| format!(" {origin}"));
    let main_app = main_app.unwrap_or_default();
    let policy = format!(
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob:{files}; \
         media-src 'self' blob:{files}; connect-src 'self'{main_app}{files}; base-uri 'none'; \
         form-action 'none'; frame-ancestors 'none'"
    );
    // An origin is plain text: the settings see to it.
    HeaderValue::from_str(&policy).unwrap_or(HeaderValue::from_static("default-src 'none'"))
}

/// What goes with every answer, whoever gives it: nothing is to be guessed or told on.
pub const SAFE_HEADERS: [(HeaderName, HeaderValue); 2] = [
    (
        header::X_CONTENT_TYPE_OPTIONS,
        HeaderValue::from_static("nosniff"),
    ),
    (
        header::REFERRER_POLICY,
        HeaderValue::from_static("no-referrer"),
    ),
];

/// Gives a file, or says that the client's copy is the same.
pub fn serve(file: &'static PageFile, headers: &HeaderMap) -> Response {
    let known = headers
        .get(header::IF_NONE_MATCH)
        .and_then(|value| value.to_str().ok())
        .is_some_and(|tags| {
            tags.split(',')
                .map(str::trim)
                .any(|tag| tag == "*" || tag.strip_prefix("W/").unwrap_or(tag) == *TAG)
        });
    // Asked for each time, which the tag makes cheap: after an update nobody runs an old page.
    let headers = [
        (header::ETAG, TAG.as_str()),
        (header::CACHE_CONTROL, "no-cache"),
        (header::CONTENT_TYPE, file.content_type),
    ];
    if known {
        (StatusCode::NOT_MODIFIED, headers, Body::empty()).into_response()
    } else {
        (headers, file.bytes).into_response()
    }
}
