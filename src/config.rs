//! What the node is told before it starts: read once, before anything binds; everything that is
//! wrong is told at once.
//!
//! Invariants: a value of this type can be run as it is; a secret is never printed; production
//! mode never runs with a default secret, the demo login or an open list of origins.
//!
//! Next: [`crate::node`].

pub mod settings;
pub mod storage;
pub mod uploads;
mod url;

use crate::chat::sabotage::Sabotaged;
use crate::limits;
use crate::protocol::network::Network;
use settings::{Asked, Gathered, Sources, Task};
use std::fmt;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use storage::Storage;
use uploads::Uploads;
use url::{is_origin, is_private};

/// How the node is to run.
#[derive(Clone, Debug)]
pub struct Config {
    /// Where it listens.
    pub listen: SocketAddr,
    /// What it is called.
    pub node: String,
    /// Its shards, 1 to [`limits::SHARDS_MAX`].
    pub shards: u16,
    /// How careful it is.
    pub mode: Mode,
    /// Folder of the embedded store and of files.
    pub data_dir: PathBuf,
    /// The store.
    pub database: Database,
    /// Where files are kept.
    pub storage: Storage,
    /// The relay between nodes; empty: there is none.
    pub redis_urls: Vec<Secret>,
    /// What this deployment's channels begin with.
    pub redis_prefix: String,
    /// Secrets of tokens; the first one signs. Empty only in development, where the node makes
    /// one and keeps it in the data folder.
    pub jwt_secrets: Vec<Secret>,
    /// `iss` of tokens.
    pub jwt_issuer: String,
    /// `aud` of tokens.
    pub jwt_audience: String,
    /// Where the public keys of tokens are.
    pub jwks_url: Option<String>,
    /// Where to ask about a token.
    pub introspection_url: Option<String>,
    /// Who we are to the Main App.
    pub main_app_token: Option<Secret>,
    /// Secrets of the webhooks of the Map Service; empty: there are none.
    pub webhook_secrets_map: Vec<Secret>,
    /// Secrets of the webhooks of the Main App; empty: there are none.
    pub webhook_secrets_main_app: Vec<Secret>,
    /// Who is told of what happens here.
    pub webhook_out_url: Option<String>,
    /// Secrets that sign what they are told; empty only without [`Config::webhook_out_url`].
    pub webhook_out_secrets: Vec<Secret>,
    /// Where that may lead beside the public internet.
    pub webhook_allow_cidrs: Vec<Network>,
    /// Attempts before a webhook is given up.
    pub webhook_out_attempts: u32,
    /// Wait after the first attempt that failed, ms.
    pub webhook_out_retry_ms: u64,
    /// A message is pushed after this time, ms.
    pub push_grace_ms: u64,
    /// Whether a push shows the beginning of the message.
    pub push_preview: bool,
    /// Service tokens; empty: there is no Admin API.
    pub admin_tokens: Vec<Secret>,
    /// Wrong service tokens of one address in a minute.
    pub admin_failures_per_min: u32,
    /// For how many days rooms keep messages that have no age of their own; 0: for ever.
    pub retention_days: u32,
    /// Whose pages may connect.
    pub origins: Origins,
    /// The origin of the Main App, where the page gets its tokens.
    pub main_app_url: Option<String>,
    /// Whether `POST /v1/demo/login` is there.
    pub demo_login: bool,
    /// Messages of one connection in 10 s.
    pub sends_per_10s: u32,
    /// Commands of one connection in 10 s.
    pub commands_per_10s: u32,
    /// What users may bring.
    pub uploads: Uploads,
    /// Between the commits of a busy shard, µs; `None`: as suits the store.
    pub batch_spacing_us: Option<u64>,
    /// Time of a drain, ms.
    pub drain_ms: u64,
    /// Connections taken at most; `None`: as many as open files allow.
    pub connections_max: Option<usize>,
    /// Sockets of one address; 0: no limit.
    pub connections_per_ip: u32,
    /// Connections of one user; 0: no limit.
    pub connections_per_user: usize,
    /// Proxies of ours, which are believed when they tell for whom they connect.
    pub trusted_proxies: Vec<Network>,
    /// Bytes that may wait for all clients together.
    pub outbox_node_bytes: usize,
    /// Filter of the log.
    pub log: String,
    /// The fault that is on, in test builds.
    pub sabotage: Sabotaged,
    /// What was odd about the settings, for the log.
    pub warnings: Vec<String>,
}

/// How careful the node is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Mode {
    /// On one's own machine: everything works without any setting.
    Development,
    /// In front of people: refuses what is not safe.
    Production,
}

/// The store.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Database {
    /// Embedded, in this folder.
    Sqlite(PathBuf),
    /// PostgreSQL, by its URL, which may hold a password.
    Postgres(Secret),
}

/// Whose pages may open a WebSocket. A request without `Origin` comes from no browser.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Origins {
    /// Those of this server and of loopback hosts: for development.
    SameHostOrLoopback,
    /// These, each `scheme://host[:port]` in lower case.
    Listed(Vec<String>),
}

/// A string that shows itself to nobody by accident.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(String);

impl Secret {
    /// Hides a string.
    pub fn new(text: String) -> Secret {
        Secret(text)
    }

    /// The bytes, for whom they are meant.
    pub fn expose(&self) -> &[u8] {
        self.0.as_bytes()
    }

    /// The text, for whom it is meant.
    pub fn expose_text(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("[redacted]")
    }
}

impl fmt::Display for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("[redacted]")
    }
}

/// What the command line led to.
#[derive(Debug)]
pub enum Start {
    /// Run with this.
    Run(Box<Config>),
    /// Do this with it and stop.
    Do(Box<Config>, Task),
    /// Print this and stop.
    Print(String),
}

/// Why there is nothing to run.
#[derive(Debug)]
pub enum Refused {
    /// The command line makes no sense, or asked for help.
    Usage(clap::Error),
    /// Everything that is wrong, one sentence each.
    Problems(Vec<String>),
}

impl fmt::Display for Refused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Refused::Usage(error) => error.fmt(f),
            Refused::Problems(problems) => {
                writeln!(f, "caffis-chat cannot start with these settings:")?;
                for problem in problems {
                    writeln!(f, "  - {problem}")?;
                }
                write!(f, "`caffis-chat --help` lists all settings.")
            }
        }
    }
}

/// What the machine says, for defaults.
#[derive(Clone, Debug)]
pub struct Machine {
    /// Its cores.
    pub cores: usize,
    /// Its name.
    pub host: String,
}

impl Machine {
    /// This one.
    pub fn this() -> Machine {
        let host = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
        // Without an answer one shard is right everywhere.
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        Machine { cores, host }
    }
}

/// Shortest secret that production takes, bytes: as long as the hash (RFC 7518, section 3.2).
const SECRET_BYTES_MIN: usize = 32;
/// A secret of fewer different bytes than this was not made by a generator. 32 random bytes have
/// 30 different ones on average, 32 random hexadecimal digits 14.
const SECRET_DIFFERENT_BYTES_MIN: usize = 8;
/// The webhook secret of the example file.
const WHSEC_EXAMPLE: &str = "whsec_b25seSBhbiBleGFtcGxlOiBtYWtlIHlvdXIgb3duISE=";
/// Words that secrets of examples have.
const SECRET_WORDS: &[&str] = &[
    "changeme",
    "change-me",
    "change_me",
    "default",
    "example",
    "generator",
    "your-secret",
];

impl Config {
    /// Reads the settings of this process.
    ///
    /// # Errors
    /// [`Refused`], to be shown to the operator.
    pub fn load() -> Result<Start, Refused> {
        let sources = Sources {
            args: std::env::args_os()
                .skip(1)
                .map(|arg| arg.to_string_lossy().into_owned())
                .collect(),
            env: std::env::vars_os()
                .filter_map(|(name, value)| Some((name.into_string().ok()?, value)))
                .map(|(name, value)| (name, value.to_string_lossy().into_owned()))
                .collect(),
        };
        Config::read(&sources, &Machine::this(), |path| {
            std::fs::read_to_string(path)
        })
    }

    /// Reads the settings of these sources.
    ///
    /// # Errors
    /// [`Refused`], to be shown to the operator.
    pub fn read(
        sources: &Sources,
        machine: &Machine,
        read_file: impl FnOnce(&str) -> std::io::Result<String>,
    ) -> Result<Start, Refused> {
        let config = |gathered| {
            Config::from_gathered(gathered, machine)
                .map(Box::new)
                .map_err(Refused::Problems)
        };
        match settings::gather(sources, read_file).map_err(Refused::Usage)? {
            Asked::Print(text) => Ok(Start::Print(text)),
            Asked::Run(gathered) => config(gathered).map(Start::Run),
            Asked::Do(gathered, task) => config(gathered).map(|config| Start::Do(config, task)),
        }
    }

    fn from_gathered(gathered: Gathered, machine: &Machine) -> Result<Config, Vec<String>> {
        let mut raw = gathered;
        let mode = raw.take("mode", Mode::Development, parse_mode);
        let development = mode == Mode::Development;
        let data_dir = raw.take("data_dir", PathBuf::from("./data"), parse_path);
        let cores = u16::try_from(machine.cores.clamp(1, limits::SHARDS_MAX)).unwrap_or(1);
        let allow_insecure = raw.take("allow_insecure", false, parse_bool);
        let default_origins = match mode {
            Mode::Development => Origins::SameHostOrLoopback,
            Mode::Production => Origins::Listed(Vec::new()),
        };
        let config = Config {
            listen: raw.take("listen", SocketAddr::from(([127, 0, 0, 1], 8080)), |text| {
                text.parse()
                    .map_err(|_| "an address and a port, such as 127.0.0.1:8080".to_owned())
            }),
            node: raw.take("node", node_name(&machine.host), parse_node),
            shards: raw.take("shards", cores, parse_number(1, limits::SHARDS_MAX as u64)),
            mode,
            database: raw.take("database_url", Database::Sqlite(data_dir.clone()), |text| {
                parse_database(text, &data_dir)
            }),
            data_dir: data_dir.clone(),
            storage: Storage::take(&mut raw),
            redis_urls: raw.take("redis_url", Vec::new(), parse_redis),
            redis_prefix: raw.take("redis_prefix", "caffis".to_owned(), parse_prefix),
            jwt_secrets: raw.take("jwt_secret", Vec::new(), parse_secrets),
            jwt_issuer: raw.take("jwt_issuer", "caffis".to_owned(), parse_claim),
            jwt_audience: raw.take("jwt_audience", "caffis-chat".to_owned(), parse_claim),
            jwks_url: raw.take("jwks_url", None, parse_url),
            introspection_url: raw.take("introspection_url", None, parse_url),
            main_app_token: raw.take("main_app_token", None, parse_token),
            webhook_secrets_map: raw.take("webhook_secrets_map", Vec::new(), parse_whsec),
            webhook_secrets_main_app: raw.take("webhook_secrets_main_app", Vec::new(), parse_whsec),
            webhook_out_url: raw.take("webhook_out_url", None, parse_url),
            webhook_out_secrets: raw.take("webhook_out_secrets", Vec::new(), parse_whsec),
            webhook_allow_cidrs: raw.take(
                "webhook_allow_cidrs",
                if development { loopback() } else { Vec::new() },
                parse_networks,
            ),
            webhook_out_attempts: raw.take(
                "webhook_out_attempts",
                limits::HOOK_ATTEMPTS_MAX,
                parse_number(1, 10_000),
            ),
            webhook_out_retry_ms: raw.take(
                "webhook_out_retry_ms",
                limits::HOOK_RETRY_MS,
                parse_number(1, 3_600_000),
            ),
            push_grace_ms: raw.take(
                "push_grace_ms",
                limits::PUSH_GRACE_MS,
                parse_number(0, 600_000),
            ),
            push_preview: raw.take("push_preview", true, parse_bool),
            admin_tokens: raw.take("admin_token", Vec::new(), parse_admin_tokens),
            admin_failures_per_min: raw.take(
                "admin_failures_per_min",
                limits::ADMIN_FAILURES_PER_MIN,
                parse_number(1, 1_000_000),
            ),
            retention_days: raw.take(
                "retention_days",
                0,
                parse_number(0, limits::RETENTION_DAYS_MAX.into()),
            ),
            origins: raw.take("allowed_origins", default_origins, parse_origins),
            main_app_url: raw.take("main_app_url", None, parse_origin),
            demo_login: raw.take("demo_login", development, parse_bool),
            sends_per_10s: raw.take(
                "sends_per_10s",
                limits::SENDS_PER_10S,
                parse_number(1, 100_000_000),
            ),
            commands_per_10s: raw.take(
                "commands_per_10s",
                limits::COMMANDS_PER_10S,
                parse_number(1, 100_000_000),
            ),
            uploads: Uploads::take(&mut raw),
            batch_spacing_us: raw.take("batch_spacing_us", None, |text| {
                parse_number(0, limits::BATCH_SPACING_US_MAX)(text).map(Some)
            }),
            drain_ms: raw.take("drain_ms", 10_000, parse_number(0, 600_000)),
            connections_max: raw.take("connections_max", None, |text| {
                parse_number::<usize>(1, 10_000_000)(text).map(Some)
            }),
            connections_per_ip: raw.take(
                "connections_per_ip",
                limits::CONNECTIONS_PER_IP,
                parse_number(0, 10_000_000),
            ),
            connections_per_user: raw.take(
                "connections_per_user",
                limits::CONNECTIONS_PER_USER,
                parse_number(0, 100_000),
            ),
            trusted_proxies: raw.take("trusted_proxies", loopback(), parse_networks),
            // Less than one full outbox a shard would close the first slow reader of a busy room.
            outbox_node_bytes: raw.take(
                "outbox_node_bytes",
                limits::OUTBOX_NODE_BYTES_MAX,
                parse_number(limits::OUTBOX_BYTES_MAX as u64, 1 << 40),
            ),
            log: raw.take("log", "info".to_owned(), parse_log),
            sabotage: raw.take_sabotage(),
            warnings: std::mem::take(&mut raw.warnings),
        };
        let mut problems = raw.problems;
        match mode {
            Mode::Development => {
                if !config.listen.ip().is_loopback() && !allow_insecure {
                    problems.push(format!(
                        "development mode gives anybody a user, so it listens only on loopback, \
                         not on {}; set CAFFIS_MODE=production, or CAFFIS_ALLOW_INSECURE=1 if \
                         this network is yours alone",
                        config.listen.ip()
                    ));
                }
            }
            Mode::Production => problems.extend(config.unsafe_for_production()),
        }
        if problems.is_empty() {
            Ok(config)
        } else {
            Err(problems)
        }
    }

    /// What production mode refuses.
    fn unsafe_for_production(&self) -> Vec<String> {
        let mut problems = Vec::new();
        let checks_tokens = !self.jwt_secrets.is_empty()
            || self.jwks_url.is_some()
            || self.introspection_url.is_some();
        if !checks_tokens {
            problems.push(
                "production mode needs CAFFIS_JWT_SECRET, CAFFIS_JWKS_URL or \
                 CAFFIS_INTROSPECTION_URL"
                    .to_owned(),
            );
        }
        for (name, url) in [
            ("CAFFIS_JWKS_URL", &self.jwks_url),
            ("CAFFIS_INTROSPECTION_URL", &self.introspection_url),
        ] {
            if url.as_deref().is_some_and(|url| !is_private(url)) {
                problems.push(format!(
                    "production mode needs {name} to be https://, or on this machine: whoever is on \
                     the way could make anybody's token"
                ));
            }
        }
        if self.webhook_out_url.is_some() && self.webhook_out_secrets.is_empty() {
            problems.push(
                "production mode needs CAFFIS_WEBHOOK_OUT_SECRETS for CAFFIS_WEBHOOK_OUT_URL; make one with \
                 `echo whsec_$(openssl rand -base64 32)`"
                    .to_owned(),
            );
        }
        // Inside a network that the operator named it may be plain: nobody else is on the way.
        let is_plain = |url: &String| !is_private(url) && self.webhook_allow_cidrs.is_empty();
        if self.webhook_out_url.as_ref().is_some_and(is_plain) {
            problems.push(
                "production mode needs CAFFIS_WEBHOOK_OUT_URL to be https://: people's messages go there"
                    .to_owned(),
            );
        }
        for (name, secrets) in [
            ("CAFFIS_JWT_SECRET", &self.jwt_secrets),
            ("CAFFIS_ADMIN_TOKEN", &self.admin_tokens),
        ] {
            for (place, secret) in secrets.iter().enumerate() {
                if let Some(weakness) = weakness(secret) {
                    problems.push(format!(
                        "secret {} of {name} {weakness}; make one with `openssl rand -hex 32`",
                        place + 1
                    ));
                }
            }
        }
        let webhooks = (self.webhook_secrets_map.iter())
            .chain(&self.webhook_secrets_main_app)
            .chain(&self.webhook_out_secrets);
        if webhooks.into_iter().any(|secret| secret.0 == WHSEC_EXAMPLE) {
            problems.push(
                "production mode refuses the webhook secret of the example; make one with \
                 `echo whsec_$(openssl rand -base64 32)`"
                    .to_owned(),
            );
        }
        let open = match &self.origins {
            Origins::SameHostOrLoopback => true,
            Origins::Listed(list) => list.is_empty(),
        };
        if open {
            problems.push(
                "production mode needs CAFFIS_ALLOWED_ORIGINS: the origins of your web pages"
                    .to_owned(),
            );
        }
        if (self.main_app_url.as_ref()).is_some_and(|url| !url.starts_with("https://")) {
            problems.push(
                "production mode needs CAFFIS_MAIN_APP_URL to be https://: people's cookies go there"
                    .to_owned(),
            );
        }
        if self.demo_login {
            problems.push(
                "production mode refuses CAFFIS_DEMO_LOGIN, which gives anybody a user".to_owned(),
            );
        }
        problems
    }
}

/// Why a secret can be guessed, if so. The answer tells nothing of the secret.
fn weakness(secret: &Secret) -> Option<&'static str> {
    let bytes = secret.expose();
    let mut different = bytes.to_vec();
    different.sort_unstable();
    different.dedup();
    let lower = secret.0.to_ascii_lowercase();
    if bytes.len() < SECRET_BYTES_MIN {
        Some("is shorter than 32 bytes")
    } else if different.len() < SECRET_DIFFERENT_BYTES_MIN {
        Some("repeats itself")
    } else if SECRET_WORDS.iter().any(|word| lower.contains(word)) {
        Some("is that of an example")
    } else {
        None
    }
}

impl Gathered {
    /// The value of one setting; when it is not given, or wrong, the default.
    fn take<T>(
        &mut self,
        name: &'static str,
        default: T,
        parse: impl FnOnce(&str) -> Result<T, String>,
    ) -> T {
        let Some(raw) = self.values.remove(name) else {
            return default;
        };
        parse(raw.value.trim()).unwrap_or_else(|expected| {
            // The value itself is not shown: it may be a secret that was put into the wrong place.
            self.problems
                .push(format!("{name} (from {}) must be {expected}", raw.from));
            default
        })
    }

    #[cfg(feature = "sabotage")]
    fn take_sabotage(&mut self) -> Sabotaged {
        use crate::chat::sabotage::Sabotage;
        self.take("sabotage", Sabotaged::default(), |text| {
            let names: Vec<_> = Sabotage::ALL.iter().map(|(name, _)| *name).collect();
            match text {
                "none" => Ok(Sabotaged::default()),
                name => Sabotage::from_name(name)
                    .map(Sabotaged::with)
                    .ok_or_else(|| format!("none or one of {}", names.join(", "))),
            }
        })
    }

    #[cfg(not(feature = "sabotage"))]
    fn take_sabotage(&mut self) -> Sabotaged {
        Sabotaged::default()
    }
}

fn parse_mode(text: &str) -> Result<Mode, String> {
    match text {
        "development" => Ok(Mode::Development),
        "production" => Ok(Mode::Production),
        _ => Err("development or production".to_owned()),
    }
}

fn parse_bool(text: &str) -> Result<bool, String> {
    match text.to_ascii_lowercase().as_str() {
        "1" | "true" | "yes" | "on" => Ok(true),
        "0" | "false" | "no" | "off" => Ok(false),
        _ => Err("true or false".to_owned()),
    }
}

fn parse_number<T: TryFrom<u64>>(min: u64, max: u64) -> impl Fn(&str) -> Result<T, String> {
    move |text| {
        text.replace('_', "")
            .parse::<u64>()
            .ok()
            .filter(|number| (min..=max).contains(number))
            .and_then(|number| T::try_from(number).ok())
            .ok_or_else(|| format!("a whole number from {min} to {max}"))
    }
}

fn parse_path(text: &str) -> Result<PathBuf, String> {
    if text.is_empty() || text.contains('\0') {
        return Err("a path".to_owned());
    }
    Ok(PathBuf::from(text))
}

/// A name that is safe in logs, metrics and close reasons.
fn parse_node(text: &str) -> Result<String, String> {
    let fits = (1..=64).contains(&text.len())
        && text
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || b"._-".contains(&byte));
    if fits {
        Ok(text.to_owned())
    } else {
        Err("1 to 64 letters, digits, dots, dashes and underscores".to_owned())
    }
}

/// The host's name as far as it can be a node's.
fn node_name(host: &str) -> String {
    let name: String = host
        .trim()
        .chars()
        .filter(|c| c.is_ascii_alphanumeric() || "._-".contains(*c))
        .take(64)
        .collect();
    if name.is_empty() {
        "node".to_owned()
    } else {
        name
    }
}

fn parse_claim(text: &str) -> Result<String, String> {
    if text.is_empty() || text.len() > 200 {
        return Err("1 to 200 bytes".to_owned());
    }
    Ok(text.to_owned())
}

fn parse_database(text: &str, data_dir: &Path) -> Result<Database, String> {
    if text.starts_with("postgres:") || text.starts_with("postgresql:") {
        return parse_postgres(text);
    }
    let expected = || {
        "sqlite:, sqlite:FOLDER such as sqlite:/var/lib/caffis, or \
         postgres://user:password@host/database"
            .to_owned()
    };
    let path = text.strip_prefix("sqlite:").ok_or_else(expected)?;
    // `sqlite:///var/x` and `sqlite:/var/x` are the same folder.
    let path = path.strip_prefix("//").unwrap_or(path);
    if path.starts_with(':') {
        return Err("a folder: a store in memory would forget what was acknowledged".to_owned());
    }
    if path.contains(['?', '\0']) || path.ends_with(".db") {
        return Err(expected());
    }
    Ok(Database::Sqlite(data_dir.join(path)))
}

/// The shape of a URL; whether it leads anywhere is known when it is opened.
fn parse_postgres(text: &str) -> Result<Database, String> {
    let expected = || "postgres://user:password@host:port/database?sslmode=verify-full".to_owned();
    let (_, rest) = text.split_once("://").ok_or_else(expected)?;
    let (address, query) = rest.split_once('?').unwrap_or((rest, ""));
    let (authority, database) = address.split_once('/').ok_or_else(expected)?;
    let (_, host) = authority.rsplit_once('@').unwrap_or(("", authority));
    let has_host = !host.is_empty() || query.split('&').any(|pair| pair.starts_with("host="));
    if !has_host || database.is_empty() || text.contains(['\0', ' ']) {
        return Err(expected());
    }
    Ok(Database::Postgres(Secret::new(text.to_owned())))
}

fn parse_redis(text: &str) -> Result<Vec<Secret>, String> {
    let urls: Vec<_> = list(text).map(|item| Secret(item.to_owned())).collect();
    let known = |url: &Secret| url.0.starts_with("redis://") || url.0.starts_with("rediss://");
    if urls.is_empty() || !urls.iter().all(known) {
        return Err("redis://HOST:PORT or rediss://HOST:PORT, comma-separated".to_owned());
    }
    Ok(urls)
}

fn parse_prefix(text: &str) -> Result<String, String> {
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_.".contains(c);
    if text.is_empty() || text.len() > 64 || !text.chars().all(plain) {
        return Err("1 to 64 letters, digits, `-`, `_` or `.`".to_owned());
    }
    Ok(text.to_owned())
}

fn parse_secrets(text: &str) -> Result<Vec<Secret>, String> {
    let secrets: Vec<_> = list(text).map(|item| Secret(item.to_owned())).collect();
    if secrets.is_empty() {
        return Err("one or more secrets, comma-separated".to_owned());
    }
    Ok(secrets)
}

fn parse_origin(text: &str) -> Result<Option<String>, String> {
    let origin = text.trim_end_matches('/').to_ascii_lowercase();
    if !origin.is_ascii() || !is_origin(&origin) {
        return Err("scheme://host[:port], without a path".to_owned());
    }
    Ok(Some(origin))
}

/// The shape of a URL; whether it leads anywhere is known when it is asked.
fn parse_url(text: &str) -> Result<Option<String>, String> {
    let rest = (text.strip_prefix("https://")).or_else(|| text.strip_prefix("http://"));
    let host = rest.and_then(|rest| rest.split(['/', '?']).next());
    let plain = |c: char| c.is_ascii_graphic() && !"#\"<>\\^`{|}".contains(c);
    let fits = host.is_some_and(|host| !host.is_empty() && !host.contains('@'));
    if !fits || text.len() > 2_000 || !text.chars().all(plain) {
        return Err("https://HOST/PATH, without a password".to_owned());
    }
    Ok(Some(text.to_owned()))
}

fn parse_token(text: &str) -> Result<Option<Secret>, String> {
    if text.is_empty() || !text.bytes().all(|byte| byte.is_ascii_graphic()) {
        return Err("a token without blanks".to_owned());
    }
    Ok(Some(Secret(text.to_owned())))
}

/// Secrets of Standard Webhooks: 24 to 64 bytes each.
fn parse_whsec(text: &str) -> Result<Vec<Secret>, String> {
    use base64::Engine;
    let base64 = base64::engine::general_purpose::STANDARD;
    let fits = |item: &str| {
        let bytes = item.strip_prefix("whsec_").map(|it| base64.decode(it));
        bytes.is_some_and(|bytes| bytes.is_ok_and(|it| (24..=64).contains(&it.len())))
    };
    let secrets: Vec<_> = list(text).map(|item| Secret(item.to_owned())).collect();
    if secrets.is_empty() || !secrets.iter().all(|secret| fits(&secret.0)) {
        return Err("whsec_ and 24 to 64 bytes in base64 each, comma-separated".to_owned());
    }
    Ok(secrets)
}

fn parse_admin_tokens(text: &str) -> Result<Vec<Secret>, String> {
    let expected = || {
        let least = limits::ADMIN_TOKEN_CHARS_MIN;
        format!("one or more tokens of at least {least} visible ASCII characters, comma-separated")
    };
    let tokens = parse_secrets(text).map_err(|_| expected())?;
    let fits = |token: &Secret| {
        token.0.len() >= limits::ADMIN_TOKEN_CHARS_MIN
            && token.0.bytes().all(|byte| byte.is_ascii_graphic())
    };
    match tokens.iter().all(fits) {
        true => Ok(tokens),
        false => Err(expected()),
    }
}

fn parse_origins(text: &str) -> Result<Origins, String> {
    let items: Vec<_> = list(text).map(str::to_ascii_lowercase).collect();
    if items.is_empty() || !items.iter().all(|item| is_origin(item)) {
        // `*` is refused too: any page in the world could then speak as its visitor.
        return Err("origins such as https://app.example.org, comma-separated, not *".to_owned());
    }
    Ok(Origins::Listed(items))
}

fn parse_networks(text: &str) -> Result<Vec<Network>, String> {
    if text == "none" {
        return Ok(Vec::new());
    }
    let networks: Option<Vec<_>> = list(text).map(Network::parse).collect();
    networks
        .filter(|networks| !networks.is_empty())
        .ok_or_else(|| "networks such as 10.0.0.0/8, comma-separated, or none".to_owned())
}

/// This machine, where a proxy often runs.
fn loopback() -> Vec<Network> {
    ["127.0.0.0/8", "::1"]
        .into_iter()
        .filter_map(Network::parse)
        .collect()
}

fn parse_log(text: &str) -> Result<String, String> {
    match tracing_subscriber::EnvFilter::try_new(text) {
        Ok(_) => Ok(text.to_owned()),
        Err(_) => Err("a filter such as info or info,caffis_chat=debug".to_owned()),
    }
}

fn list(text: &str) -> impl Iterator<Item = &str> {
    text.split(',')
        .map(str::trim)
        .filter(|item| !item.is_empty())
}
