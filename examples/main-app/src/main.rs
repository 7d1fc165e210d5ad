//! The Main App of Caffis, as small as it can be and still be real: who people are, and what others are
//! told of it.
//!
//! [`accounts`] codes, accounts, sessions → [`tokens`] what sessions give: JWTs, keys, introspection →
//! [`profile`] what changes, and the events that tell it → [`operator`] suspend, delete, rotate. [`notifications`] what the
//! chat tells: whom to push to.

mod accounts;
mod notifications;
mod operator;
mod profile;
mod tokens;

use axum::Router;
use axum::extract::State;
use axum::response::Response;
use axum::routing::{delete, get, post};
use example_kit::db::{Db, Migration};
use example_kit::outbox::Outbox;
use example_kit::web::{self, Pages, required, setting};
use example_kit::webhook::Secret;
use serde_json::json;
use std::process::ExitCode;
use std::sync::Arc;

const MIGRATIONS: &[Migration] = &[
    Migration {
        sqlite: include_str!("../migrations/sqlite/0001_accounts.sql"),
        postgres: include_str!("../migrations/postgres/0001_accounts.sql"),
    },
    Migration {
        sqlite: include_str!("../migrations/sqlite/0002_notifications.sql"),
        postgres: include_str!("../migrations/postgres/0002_notifications.sql"),
    },
];

/// What every handler has.
pub struct Shared {
    db: Db,
    outbox: Outbox,
    settings: Settings,
}
pub type App = State<Arc<Shared>>;

pub struct Settings {
    /// Where browsers find this service, the chat and the map.
    public_url: String,
    chat_url: String,
    map_url: String,
    issuer: String,
    /// Services that tokens are for.
    audiences: Vec<String>,
    /// How long a token lives, s.
    token_s: i64,
    /// What services show that ask whether a token is still good.
    introspection_token: String,
    /// What operators show.
    admin_token: String,
    /// With what the chat signs; none: it tells us nothing.
    chat_secret: Option<Secret>,
    /// Who else wants to hear of new rooms.
    map_webhook_url: Option<String>,
}

fn main() -> ExitCode {
    web::run(start())
}

async fn start() -> Result<(), String> {
    if setting("MAIN_APP_SHOW_CODES", "") != "1" {
        return Err("this example cannot send e-mail: with MAIN_APP_SHOW_CODES=1 codes are shown on the page, \
                    to whoever asks"
            .to_owned());
    }
    let (listener, address) = web::listen("MAIN_APP_LISTEN", "127.0.0.1:8081").await?;
    let token_s = setting("MAIN_APP_TOKEN_SECONDS", "600").parse();
    let settings = Settings {
        public_url: setting("MAIN_APP_PUBLIC_URL", &address),
        chat_url: setting("MAIN_APP_CHAT_URL", "http://127.0.0.1:8080"),
        map_url: setting("MAIN_APP_MAP_URL", "http://127.0.0.1:8082"),
        issuer: setting("MAIN_APP_JWT_ISSUER", "caffis"),
        audiences: setting("MAIN_APP_JWT_AUDIENCES", "caffis-chat,caffis-map")
            .split(',')
            .map(str::to_owned)
            .collect(),
        token_s: token_s.map_err(|_| "MAIN_APP_TOKEN_SECONDS is no number".to_owned())?,
        introspection_token: required(
            "MAIN_APP_INTROSPECTION_TOKEN",
            "what services show at /introspect",
        )?,
        admin_token: required("MAIN_APP_ADMIN_TOKEN", "what operators show at /admin")?,
        chat_secret: match setting("MAIN_APP_CHAT_WEBHOOK_SECRET", "") {
            none if none.is_empty() => None,
            secret => Some(
                Secret::parse(&secret)
                    .ok_or("MAIN_APP_CHAT_WEBHOOK_SECRET is not whsec_ and base64")?,
            ),
        },
        map_webhook_url: Some(setting("MAIN_APP_MAP_WEBHOOK_URL", ""))
            .filter(|url| !url.is_empty()),
    };
    let secret = required("MAIN_APP_WEBHOOK_SECRET", "whsec_…, shared with the chat")?;
    let secret =
        Secret::parse(&secret).ok_or("MAIN_APP_WEBHOOK_SECRET is not whsec_ and base64")?;
    let url = setting("MAIN_APP_DATABASE_URL", "sqlite:main-app.db");
    let db = Db::open(&url, MIGRATIONS)
        .await
        .map_err(|error| error.to_string())?;
    tokens::first_keys(&db)
        .await
        .map_err(|error| error.to_string())?;
    let webhook = setting(
        "MAIN_APP_WEBHOOK_URL",
        &format!("{}/v1/webhooks/main-app", settings.chat_url),
    );
    let outbox = Outbox::start(db.clone(), &webhook, secret);
    let shared = Arc::new(Shared {
        db,
        outbox,
        settings,
    });
    web::serve(listener, routes(&shared)).await
}

fn routes(shared: &Arc<Shared>) -> Router {
    let pages = Pages {
        own: shared.settings.public_url.clone(),
        others: vec![
            shared.settings.chat_url.clone(),
            shared.settings.map_url.clone(),
        ],
        path_for_others: "/v1/token",
        asks: Vec::new(),
    };
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
        .route("/v1/signup", post(accounts::sign_up))
        .route("/v1/login", post(accounts::log_in))
        .route("/v1/verify", post(accounts::verify))
        .route("/v1/logout", post(accounts::log_out))
        .route("/v1/sessions", get(accounts::sessions))
        .route("/v1/sessions/{sid}", delete(accounts::end_session))
        .route("/v1/invitations", post(accounts::invite))
        .route("/v1/me", get(profile::me).patch(profile::change))
        .route("/v1/notifications", get(notifications::list))
        .route("/v1/webhooks/chat", post(notifications::receive))
        .route("/v1/token", post(tokens::token))
        .route("/.well-known/jwks.json", get(tokens::jwks))
        .route("/introspect", post(tokens::introspect))
        .route("/admin/rotate", post(operator::rotate))
        .route("/admin/users/{user_id}", delete(operator::delete))
        .route("/admin/users/{user_id}/suspend", post(operator::suspend))
        .route("/admin/users/{user_id}/restore", post(operator::restore))
        .with_state(shared.clone());
    web::guard(router, pages)
}

/// Where the page leads to.
async fn config(State(app): App) -> Response {
    let Settings {
        chat_url, map_url, ..
    } = &app.settings;
    web::json_answer(&json!({"chat_url": chat_url, "map_url": map_url}))
}
