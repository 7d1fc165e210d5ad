//! Who answers what.

use super::admin::{self, Admin};
use super::files::{self, Files};
use super::health::{self, Readiness};
use super::hooks::HookCounts;
use super::metrics::{self, HttpCounts};
use super::page::{FILES, SAFE_HEADERS, policy, serve};
use super::problem::{Problem, too_large};
use super::request_id::{self, RequestId};
use super::requests::{self, Requests};
use super::store_client::StoreClient;
use super::upload_counts::UploadCounts;
use super::webhooks::Webhooks;
use super::{NodeView, Origins, Parts, cors, demo};
use crate::identity::DemoLogin;
use crate::protocol::{ErrorCode, asyncapi, http, openapi, openapi_webhooks};
use axum::Router;
use axum::body::Bytes;
use axum::extract::rejection::BytesRejection;
use axum::extract::{DefaultBodyLimit, MatchedPath, Request, State};
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use std::sync::Arc;
use std::time::{Duration, Instant};
use tracing::Instrument;

/// Longest time of one request, from its head to its answer.
pub const REQUEST_MAX: Duration = Duration::from_secs(10);

/// What the handlers share.
pub(super) struct Shared {
    pub node: Arc<dyn NodeView>,
    pub http: HttpCounts,
    readiness: Readiness,
    pub store: StoreClient,
    /// What the webhooks of ours count; nothing if there are none.
    pub hooks: Arc<HookCounts>,
    demo: Option<Arc<dyn DemoLogin>>,
    sign_in: String,
    policy: HeaderValue,
    asyncapi: String,
    openapi: String,
    pub requests: Requests,
    pub admin: Option<Admin>,
    pub webhooks: Webhooks,
    /// Present if files are kept in a folder of this node.
    pub files: Option<Files>,
    uploads: Arc<UploadCounts>,
    pub origins: Arc<Origins>,
}

type App = State<Arc<Shared>>;
type Body = Result<Bytes, BytesRejection>;

impl Shared {
    pub fn new(parts: Parts) -> Shared {
        let requests = Requests::new(&parts);
        let store = StoreClient::new(parts.store);
        let webhooks = Webhooks::new(parts.webhooks, store.clone());
        let admin = parts.admin.map(|own| {
            Admin::new(
                own,
                parts.node.clone(),
                store.clone(),
                webhooks.clone(),
                parts.files.blob.clone(),
            )
        });
        Shared {
            readiness: Readiness::new(parts.node.clone(), store.clone()),
            node: parts.node,
            http: HttpCounts::default(),
            store,
            hooks: parts.hooks.map(|own| own.counts).unwrap_or_default(),
            sign_in: serde_json::json!({
                "main_app_url": parts.main_app_url,
                "demo": parts.demo.is_some(),
            })
            .to_string(),
            policy: policy(parts.main_app_url.as_deref(), &parts.files.origins),
            demo: parts.demo,
            asyncapi: asyncapi::document_text(),
            openapi: openapi::document_text(),
            requests,
            admin,
            webhooks,
            files: parts.files.folder.map(Files::new),
            uploads: parts.files.counts,
            origins: parts.origins,
        }
    }
}

/// The routes of a node.
pub(super) fn routes(shared: &Arc<Shared>) -> Router {
    let mut router = Router::new()
        .route("/healthz", get(health::healthz))
        .route("/readyz", get(readyz))
        .route("/metrics", get(metrics))
        .route("/v1/asyncapi.json", get(asyncapi_json))
        .route("/v1/openapi.json", get(openapi_json))
        .route("/v1/sign-in", get(sign_in))
        .route("/v1/ws", get(no_upgrade));
    for file in &FILES {
        let answer = move |headers: HeaderMap| async move { serve(file, &headers) };
        router = router.route(file.path, get(answer));
    }
    for (path, source) in openapi_webhooks::WEBHOOKS {
        let answer = move |State(shared): App, headers: HeaderMap, body: Body| async move {
            shared.webhooks.receive(*source, &headers, body).await
        };
        router = router.route(path, post(answer));
    }
    if shared.demo.is_some() {
        router = router.route("/v1/demo/login", post(demo_login));
    }
    if shared.admin.is_some() {
        for (path, methods) in admin::routes() {
            router = router.route(path, methods);
        }
    }
    let mut api = Router::new().route(openapi::ME_PATH, get(me).options(cors::options));
    for (path, methods) in requests::routes() {
        api = api.route(path, methods.options(cors::options));
    }
    if shared.files.is_some() {
        let upload = post(files::upload).options(cors::options);
        let download = get(files::download).options(cors::options);
        api = api
            .route(files::UPLOADS, upload)
            .route(files::DOWNLOADS, download);
    }
    let cors = middleware::from_fn_with_state(shared.clone(), cors::cors);
    router
        .merge(api.route_layer(cors))
        .fallback(not_found)
        .method_not_allowed_fallback(method_not_allowed)
        .layer(DefaultBodyLimit::max(http::BODY_BYTES_MAX))
        .layer(middleware::from_fn_with_state(shared.clone(), around))
        .with_state(shared.clone())
}

/// Around every request: names it, bounds its time, counts it, logs it, and makes its answer safe
/// to look at. Whatever is logged meanwhile carries the request's id.
async fn around(State(shared): App, mut request: Request, next: Next) -> Response {
    let route = request.extensions().get::<MatchedPath>().cloned();
    let route = route.as_ref().map_or("other", MatchedPath::as_str);
    let id = RequestId::of(request.headers());
    request.extensions_mut().insert(id.clone());
    let method = request.method().clone();
    let span = tracing::info_span!("request", request_id = %id, %method, route);
    async {
        let began = Instant::now();
        let mut response = answered(&shared, route, request, next).await;
        if let Ok(value) = HeaderValue::from_str(id.as_str()) {
            response.headers_mut().insert(request_id::HEADER, value);
        }
        let (status, ms) = (
            response.status().as_u16(),
            began.elapsed().as_millis() as u64,
        );
        // Probes, scrapes and the page come by the second, and say nothing when all is well.
        if route.starts_with("/v1/") {
            tracing::info!(status, ms, "answered");
        } else {
            tracing::debug!(status, ms, "answered");
        }
        response
    }
    .instrument(span)
    .await
}

async fn answered(shared: &Shared, route: &str, request: Request, next: Next) -> Response {
    let answer = next.run(request);
    let mut response = if [files::UPLOADS, files::DOWNLOADS].contains(&route) {
        // A file takes its time, and has bounds of its own.
        answer.await
    } else {
        let answer = tokio::time::timeout(REQUEST_MAX, answer).await;
        answer.unwrap_or_else(|_| {
            // What takes long is the sender's body: the store is not waited for as long.
            Problem::new(ErrorCode::BadRequest, "the request did not end in time")
                .status(StatusCode::REQUEST_TIMEOUT)
                .into_response()
        })
    };
    // What a library refuses it tells in its own words; here everybody is told in ours.
    let code = response.extensions().get::<ErrorCode>().copied();
    if code.is_none() && response.status() == StatusCode::PAYLOAD_TOO_LARGE {
        response = too_large().into_response();
    }
    for (name, value) in SAFE_HEADERS {
        response.headers_mut().insert(name, value);
    }
    // A file has one of its own.
    (response
        .headers_mut()
        .entry(header::CONTENT_SECURITY_POLICY))
    .or_insert_with(|| shared.policy.clone());
    let code = response.extensions().get::<ErrorCode>().copied();
    shared.http.count(route, response.status(), code);
    response
}

async fn readyz(State(shared): App) -> Response {
    health::readyz(&shared.readiness).await
}

async fn metrics(State(shared): App) -> Response {
    let content_type = (header::CONTENT_TYPE, metrics::CONTENT_TYPE);
    let cache = (header::CACHE_CONTROL, "no-store");
    let files = (shared.uploads.as_ref(), shared.files.as_ref());
    let text = metrics::text(shared.node.as_ref(), &shared.http, &shared.hooks, files);
    ([content_type, cache], text).into_response()
}

async fn asyncapi_json(State(shared): App) -> Response {
    let content_type = (header::CONTENT_TYPE, "application/json");
    let cache = (header::CACHE_CONTROL, "no-cache");
    ([content_type, cache], shared.asyncapi.clone()).into_response()
}

async fn openapi_json(State(shared): App) -> Response {
    let content_type = (header::CONTENT_TYPE, "application/json");
    let cache = (header::CACHE_CONTROL, "no-cache");
    ([content_type, cache], shared.openapi.clone()).into_response()
}

/// How people sign in, for the page: `{"main_app_url","demo"}`.
async fn sign_in(State(shared): App) -> Response {
    let content_type = (header::CONTENT_TYPE, "application/json");
    let cache = (header::CACHE_CONTROL, "no-cache");
    ([content_type, cache], shared.sign_in.clone()).into_response()
}

async fn me(State(shared): App, headers: HeaderMap) -> Result<Response, Problem> {
    shared.requests.me(&headers).await
}

async fn demo_login(
    State(shared): App,
    headers: HeaderMap,
    body: Bytes,
) -> Result<Response, Problem> {
    match &shared.demo {
        Some(demo) => demo::login(demo.as_ref(), &shared.store, &headers, &body).await,
        None => Err(not_found().await),
    }
}

/// A WebSocket never comes here: the shards keep what they can upgrade, and are given back what
/// becomes one later ([`super::rejoin`]).
async fn no_upgrade() -> Problem {
    Problem::new(
        ErrorCode::BadRequest,
        "this is a WebSocket: upgrade the connection",
    )
    .status(StatusCode::UPGRADE_REQUIRED)
    .header(header::UPGRADE, "websocket")
    .header(header::CONNECTION, "upgrade")
}

async fn not_found() -> Problem {
    Problem::new(ErrorCode::NotFound, "nothing is here")
}

async fn method_not_allowed() -> Problem {
    Problem::new(ErrorCode::BadRequest, "not with this method")
        .status(StatusCode::METHOD_NOT_ALLOWED)
}
