//! The Map Service of Caffis, as small as it can be and still be real: where people are and meet.
//!
//! [`identity`] who asks, by the Main App's keys → [`places`] cafés, favourites, who is near → [`invites`] from an
//! invite to a room in the chat. [`rooms`] what the chat tells of its rooms.

mod identity;
mod invites;
mod places;
mod rooms;

use axum::Router;
use axum::extract::State;
use axum::response::Response;
use axum::routing::{get, post, put};
use example_kit::db::{Db, Migration};
use example_kit::outbox::Outbox;
use example_kit::web::{self, Pages, required, setting};
use example_kit::webhook::Secret;
use identity::Identity;
use serde_json::json;
use std::process::ExitCode;
use std::sync::Arc;

const MIGRATIONS: &[Migration] = &[
    Migration {
        sqlite: include_str!("../migrations/sqlite/0001_map.sql"),
        postgres: include_str!("../migrations/postgres/0001_map.sql"),
    },
    Migration {
        sqlite: include_str!("../migrations/sqlite/0002_rooms.sql"),
        postgres: include_str!("../migrations/postgres/0002_rooms.sql"),
    },
];

/// What every handler has.
pub struct Shared {
    db: Db,
    outbox: Outbox,
    identity: Identity,
    main_app_url: String,
    chat_url: String,
    /// With what the chat signs; none: it tells us nothing.
    chat_secret: Option<Secret>,
    /// How long an invite may be accepted, ms.
    invite_ms: i64,
}
pub type App = State<Arc<Shared>>;

fn main() -> ExitCode {
    web::run(start())
}

async fn start() -> Result<(), String> {
    let (listener, address) = web::listen("MAP_LISTEN", "127.0.0.1:8082").await?;
    let secret = required("MAP_WEBHOOK_SECRET", "whsec_…, shared with the chat")?;
    let secret = Secret::parse(&secret).ok_or("MAP_WEBHOOK_SECRET is not whsec_ and base64")?;
    let main_app_url = setting("MAP_MAIN_APP_URL", "http://127.0.0.1:8081");
    let chat_url = setting("MAP_CHAT_URL", "http://127.0.0.1:8080");
    let invite_s = setting("MAP_INVITE_SECONDS", "86400").parse::<u32>();
    let url = setting("MAP_DATABASE_URL", "sqlite:map-service.db");
    let db = Db::open(&url, MIGRATIONS)
        .await
        .map_err(|error| error.to_string())?;
    places::seed(&db).await.map_err(|error| error.to_string())?;
    let webhook = setting("MAP_WEBHOOK_URL", &format!("{chat_url}/v1/webhooks/map"));
    let shared = Arc::new(Shared {
        outbox: Outbox::start(db.clone(), &webhook, secret),
        db,
        identity: Identity::new(
            format!(
                "{}/.well-known/jwks.json",
                setting("MAP_MAIN_APP_INTERNAL_URL", &main_app_url)
            ),
            &setting("MAP_JWT_ISSUER", "caffis"),
            &setting("MAP_JWT_AUDIENCE", "caffis-map"),
        ),
        main_app_url,
        chat_url,
        chat_secret: match setting("MAP_CHAT_WEBHOOK_SECRET", "") {
            none if none.is_empty() => None,
            secret => Some(
                Secret::parse(&secret).ok_or("MAP_CHAT_WEBHOOK_SECRET is not whsec_ and base64")?,
            ),
        },
        invite_ms: i64::from(invite_s.map_err(|_| "MAP_INVITE_SECONDS is no number")?) * 1_000,
    });
    web::serve(
        listener,
        routes(&shared, setting("MAP_PUBLIC_URL", &address)),
    )
    .await
}

fn routes(shared: &Arc<Shared>, own: String) -> Router {
    let router = Router::new()
        .route(
            "/",
            get(|| async {
                web::file(
                    "text/html; charset=utf-8",
                    include_str!("../page/index.html"),
                )
            }),
        )
        .route(
            "/page.js",
            get(|| async {
                web::file(
                    "text/javascript; charset=utf-8",
                    include_str!("../page/page.js"),
                )
            }),
        )
        .route(
            "/style.css",
            get(|| async { web::file("text/css; charset=utf-8", web::STYLE) }),
        )
        .route("/healthz", get(|| async { "ok" }))
        .route("/v1/config", get(config))
        .route("/v1/places", get(places::nearby))
        .route("/v1/people", get(places::people))
        .route("/v1/webhooks/chat", post(rooms::receive))
        .route("/v1/me/location", put(places::here))
        .route(
            "/v1/me/favorites/{place_id}",
            put(places::favorite).delete(places::no_favorite),
        )
        .route("/v1/invites", get(invites::all).post(invites::create))
        .route("/v1/invites/{invite_id}/accept", post(invites::accept))
        .route("/v1/invites/{invite_id}/decline", post(invites::decline))
        .with_state(shared.clone());
    let pages = Pages {
        own,
        others: Vec::new(),
        path_for_others: "",
        asks: vec![shared.main_app_url.clone()],
    };
    web::guard(router, pages)
}

/// Where the page gets its token, and where it leads to.
async fn config(State(app): App) -> Response {
    web::json_answer(&json!({"main_app_url": app.main_app_url, "chat_url": app.chat_url}))
}
