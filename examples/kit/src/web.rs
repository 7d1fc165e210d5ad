//! What every HTTP service needs: errors as RFC 9457 problems, headers that make a page safe, CORS for named
//! origins, settings from the environment, and a start and an end.

use crate::db::DbError;
use axum::Router;
use axum::body::Body;
use axum::extract::Request;
use axum::http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, header};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};
use serde_json::json;
use std::io::IsTerminal;
use std::sync::Arc;
use tokio::net::TcpListener;

/// The look of both pages.
pub const STYLE: &str = include_str!("style.css");

/// Why a request was refused: a status and what is wrong, for whoever asked.
#[derive(Debug)]
pub struct Problem(pub StatusCode, pub String);

impl Problem {
    pub fn bad(detail: &str) -> Problem {
        Problem(StatusCode::BAD_REQUEST, detail.to_owned())
    }
    pub fn unauthorized(detail: &str) -> Problem {
        Problem(StatusCode::UNAUTHORIZED, detail.to_owned())
    }
    pub fn forbidden(detail: &str) -> Problem {
        Problem(StatusCode::FORBIDDEN, detail.to_owned())
    }
    pub fn not_found(detail: &str) -> Problem {
        Problem(StatusCode::NOT_FOUND, detail.to_owned())
    }
    pub fn conflict(detail: &str) -> Problem {
        Problem(StatusCode::CONFLICT, detail.to_owned())
    }
}

impl From<DbError> for Problem {
    fn from(error: DbError) -> Problem {
        tracing::error!(%error, "the database");
        Problem(
            StatusCode::SERVICE_UNAVAILABLE,
            "the database does not answer".to_owned(),
        )
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let title = self.0.canonical_reason().unwrap_or("error");
        let body = json!({"type": "about:blank", "title": title, "status": self.0.as_u16(), "detail": self.1});
        let content_type = (header::CONTENT_TYPE, "application/problem+json");
        (self.0, [content_type], body.to_string()).into_response()
    }
}

/// A file of a page.
pub fn file(content_type: &'static str, body: &'static str) -> Response {
    let cache = (header::CACHE_CONTROL, "no-cache");
    ([(header::CONTENT_TYPE, content_type), cache], body).into_response()
}

/// What follows `Bearer`.
pub fn bearer(headers: &HeaderMap) -> Option<&str> {
    let value = headers.get(header::AUTHORIZATION)?.to_str().ok()?;
    let (scheme, token) = value.split_once(' ')?;
    scheme.eq_ignore_ascii_case("bearer").then(|| token.trim())
}

/// Whose pages may do what here.
pub struct Pages {
    /// The origin of this service's own page.
    pub own: String,
    /// Origins of other pages, and the one path that they may ask, with cookies.
    pub others: Vec<String>,
    pub path_for_others: &'static str,
    /// Origins that our own page asks.
    pub asks: Vec<String>,
}

/// Puts around all routes: only our own pages change anything, others ask the one path that is for them, and no page
/// loads or asks anything else than it says.
pub fn guard(router: Router, pages: Pages) -> Router {
    let policy = format!(
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; \
         connect-src 'self' {}; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
        pages.asks.join(" ")
    );
    let guard = Arc::new((pages, policy));
    router.layer(middleware::from_fn(move |request: Request, next: Next| {
        let guard = guard.clone();
        async move { around(&guard.0, &guard.1, request, next).await }
    }))
}

async fn around(pages: &Pages, policy: &str, request: Request, next: Next) -> Response {
    let origin = request.headers().get(header::ORIGIN).cloned();
    let told = origin.as_ref().and_then(|origin| origin.to_str().ok());
    let is_other = told.is_some_and(|told| pages.others.iter().any(|other| other == told))
        && request.uri().path() == pages.path_for_others;
    let is_own = told.is_none_or(|told| told == pages.own);
    let mut response = if is_other && request.method() == Method::OPTIONS {
        StatusCode::NO_CONTENT.into_response()
    } else if is_own || is_other || request.method().is_safe() {
        next.run(request).await
    } else {
        Problem::forbidden("not from pages of this origin").into_response()
    };
    let headers = response.headers_mut();
    let mut set = |name: HeaderName, value: &str| {
        if let Ok(value) = HeaderValue::from_str(value) {
            headers.insert(name, value);
        }
    };
    set(header::X_CONTENT_TYPE_OPTIONS, "nosniff");
    set(header::REFERRER_POLICY, "no-referrer");
    set(header::CONTENT_SECURITY_POLICY, policy);
    set(header::VARY, "origin");
    if let Some(origin) = told.filter(|_| is_other) {
        set(header::ACCESS_CONTROL_ALLOW_ORIGIN, origin);
        set(header::ACCESS_CONTROL_ALLOW_CREDENTIALS, "true");
        set(header::ACCESS_CONTROL_ALLOW_METHODS, "POST");
        set(header::ACCESS_CONTROL_ALLOW_HEADERS, "content-type");
    }
    response
}

/// A setting of the environment that must be there.
///
/// # Errors
/// It is not, and what it is for.
pub fn required(name: &str, what: &str) -> Result<String, String> {
    let value = std::env::var(name)
        .ok()
        .filter(|value| !value.trim().is_empty());
    value.ok_or_else(|| format!("{name} is missing: {what}"))
}

/// A setting of the environment, or what it is without.
pub fn setting(name: &str, default: &str) -> String {
    std::env::var(name).unwrap_or_else(|_| default.to_owned())
}

/// Binds where `name` says.
///
/// # Errors
/// It cannot.
pub async fn listen(name: &str, default: &str) -> Result<(TcpListener, String), String> {
    let address = setting(name, default);
    let listener = TcpListener::bind(&address).await;
    let listener = listener.map_err(|error| format!("{name}={address}: {error}"))?;
    let bound = listener.local_addr().map_err(|error| error.to_string())?;
    Ok((listener, format!("http://{bound}")))
}

/// Serves until SIGINT or SIGTERM.
///
/// # Errors
/// The system has no more signals to give, or the listener broke.
pub async fn serve(listener: TcpListener, router: Router) -> Result<(), String> {
    use tokio::signal::unix::{SignalKind, signal};
    let mut terminate = signal(SignalKind::terminate()).map_err(|error| error.to_string())?;
    let address = listener.local_addr().map_err(|error| error.to_string())?;
    // Tests and scripts wait for this line.
    println!("ready http://{address}");
    let ended = async move {
        tokio::select! {
            _ = tokio::signal::ctrl_c() => (),
            _ = terminate.recv() => (),
        }
    };
    axum::serve(
        listener,
        router.layer(axum::extract::DefaultBodyLimit::max(64 << 10)),
    )
    .with_graceful_shutdown(ended)
    .await
    .map_err(|error| error.to_string())
}

/// A `main` of one thread with a log.
pub fn run(service: impl Future<Output = Result<(), String>>) -> std::process::ExitCode {
    let filter = tracing_subscriber::EnvFilter::try_from_default_env();
    let filter = filter.unwrap_or_else(|_| tracing_subscriber::EnvFilter::new("info"));
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_ansi(std::io::stderr().is_terminal())
        .init();
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build();
    let ended = match runtime {
        Ok(runtime) => runtime.block_on(service),
        Err(error) => Err(error.to_string()),
    };
    match ended {
        Ok(()) => std::process::ExitCode::SUCCESS,
        Err(problem) => {
            tracing::error!(problem, "cannot go on");
            std::process::ExitCode::FAILURE
        }
    }
}

/// An answer of JSON that nobody keeps.
pub fn json_answer(body: &serde_json::Value) -> Response {
    let headers = [
        (header::CONTENT_TYPE, "application/json"),
        (header::CACHE_CONTROL, "no-store"),
    ];
    (headers, Body::from(body.to_string())).into_response()
}
