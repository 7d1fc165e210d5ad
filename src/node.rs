//! A whole node: this and what is below are all that names backends. Settings go in, an exit code comes out.
//!
//! Invariants: nothing binds before the store is open and every setting is known to work; when
//! told to stop, nobody new is taken, everybody is told when to come back, every write under way
//! is answered, and the store closes last.
//!
//! Exit codes: 0 stopped as told; 1 could not start, or failed; 2 settings; 130 and 143 stopped by
//! a second signal without waiting.

use crate::api::hooks::{self, HookParts, HookPosted, HookPosting, HookTold};
use crate::api::serve::{self, CONNECTIONS_MAX, Work};
use crate::api::tokens::Tokens;
use crate::api::upkeep::UpkeepParts;
use crate::api::uploads::{self, Uploads};
use crate::api::webhooks::WebhookParts;
use crate::api::{AdminParts, LogView, NodeView, Parts, Phase, Serves, ShardView};
use crate::blob::BlobError;
use crate::chat::port::{Identify, Relay, Store};
use crate::chat::{CoreConfig, Peers, ShardIx};
use crate::config::{Config, Database, Mode, Origins, Secret};
use crate::doctor::Needs;
use crate::edge::LOCKED_BYTES_MAX;
use crate::edge::handshake::AllowedOrigins;
use crate::edge::peers::PeerLimits;
use crate::identity::demo::Demo;
use crate::identity::hs256::{Hs256, Issuer};
use crate::identity::remote::{Remote, RemoteOptions};
use crate::identity::{DemoLogin, WebhookSecrets, secret_file};
use crate::outbound::{Client, Endpoint, Guard};
use crate::protocol::{Epoch, UnixMs};
use crate::relay::redis::RedisRelay;
use crate::shard::{self, Handle, ShardError, Shards, ShardsConfig};
use crate::store::postgres::{self, PostgresOptions, PostgresStore};
use crate::store::sqlite::{self, SqliteOptions, SqliteStore};
use crate::{limits, sys, telemetry};
use std::io::{self, Write};
use std::net::SocketAddr;
use std::path::Path;
use std::process::ExitCode;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, SystemTime, UNIX_EPOCH};
use std::{fmt, thread};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::{Notify, oneshot};

mod files;

use files::{file_parts, uploads_of};
pub use files::{files_finding, storage_init};

/// Descriptors that are no connections of clients: the store's files, logs, the runtimes.
const DESCRIPTORS_RESERVED: usize = 128;
/// Descriptors of each shard: its listener, its rings and what wakes it.
const DESCRIPTORS_PER_SHARD: usize = 16;
/// A node of fewer connections than this is a mistake.
const CONNECTIONS_MIN: usize = 16;
/// Beyond the time of the drain: the last writes (4 s) and the last closes (4 s), twice.
const DRAIN_GRACE: Duration = Duration::from_secs(16);
/// Exit code of settings that this machine cannot run.
const EXIT_SETTINGS: u8 = 2;

/// Why a store cannot be opened or changed, in the words of its backend.
pub type StoreProblem = Box<dyn std::error::Error>;

/// Why a node could not start, or went on no longer.
#[derive(Debug)]
enum Failure {
    /// More connections than this machine can hold.
    Descriptors {
        wanted: usize,
        limit: usize,
    },
    Store(StoreProblem),
    Secret(io::Error),
    /// The object store's settings lead nowhere.
    Files(BlobError),
    /// A setting is no URL after all.
    Url(&'static str, &'static str),
    Tls(String),
    Shards(ShardError),
    System(&'static str, io::Error),
    /// Still not done long after the drain.
    DrainOverdue,
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Failure::Descriptors { wanted, limit } => write!(
                f,
                "{wanted} connections need more than the {limit} open files that this process \
                 may have (ulimit -n, systemd LimitNOFILE=)"
            ),
            Failure::Store(error) => write!(f, "cannot open the store: {error}"),
            Failure::Secret(error) => write!(
                f,
                "cannot keep a secret in the data folder ({error}); set CAFFIS_JWT_SECRET"
            ),
            Failure::Files(error) => error.fmt(f),
            Failure::Url(name, problem) => write!(f, "{name} cannot be used: {problem}"),
            Failure::Tls(problem) => write!(f, "TLS cannot be set up: {problem}"),
            Failure::Shards(error) => error.fmt(f),
            Failure::System(what, error) => write!(f, "cannot {what}: {error}"),
            Failure::DrainOverdue => write!(f, "draining took too long"),
        }
    }
}

/// What the control plane sees of the node.
struct View {
    name: String,
    draining: AtomicBool,
    shards: OnceLock<Handle>,
}

impl NodeView for View {
    fn name(&self) -> &str {
        &self.name
    }

    fn phase(&self) -> Phase {
        if self.draining.load(Ordering::Acquire) {
            Phase::Draining
        } else if self.shards.get().is_some() {
            Phase::Up
        } else {
            Phase::Starting
        }
    }

    fn shards(&self) -> Vec<ShardView> {
        let snapshots = self.shards.get().map_or_else(Vec::new, Handle::stats);
        snapshots
            .into_iter()
            .map(|snapshot| ShardView {
                chat: snapshot.core,
                counters: snapshot.driver.counters(),
                gauges: snapshot.driver.gauges(),
            })
            .collect()
    }

    fn log_counts(&self) -> LogView {
        let counts = telemetry::counts();
        LogView {
            warnings: counts.warnings,
            errors: counts.errors,
            lost: counts.lost,
        }
    }
}

/// Runs a node until it is told to stop.
pub fn run(config: Config) -> ExitCode {
    let style = match config.mode {
        Mode::Development => telemetry::Style::Human,
        Mode::Production => telemetry::Style::Json,
    };
    let telemetry = match telemetry::start(style, &config.log) {
        Ok(telemetry) => telemetry,
        Err(error) => {
            eprintln!("cannot start logging: {error}");
            return ExitCode::FAILURE;
        }
    };
    for warning in &config.warnings {
        tracing::warn!("{warning}");
    }
    let code = match run_logged(&config) {
        Ok(()) => {
            tracing::info!("stopped");
            ExitCode::SUCCESS
        }
        Err(failure) => {
            tracing::error!("{failure}");
            match failure {
                Failure::Descriptors { .. } | Failure::Url(..) | Failure::Files(_) => {
                    ExitCode::from(EXIT_SETTINGS)
                }
                Failure::Store(_)
                | Failure::Secret(_)
                | Failure::Tls(_)
                | Failure::Shards(_)
                | Failure::System(..)
                | Failure::DrainOverdue => ExitCode::FAILURE,
            }
        }
    };
    drop(telemetry);
    code
}

fn run_logged(config: &Config) -> Result<(), Failure> {
    if let Err(error) = sys::small_pages() {
        tracing::debug!(%error, "huge pages stay as they are");
    }
    let connections_max = connections_max(config)?;
    let store = open_store(config).map_err(Failure::Store)?;
    let secrets = secrets(config).map_err(Failure::Secret)?;
    let issuer = Issuer {
        issuer: config.jwt_issuer.clone(),
        audience: config.jwt_audience.clone(),
    };
    let demo = secrets.first().filter(|_| config.demo_login);
    let demo = demo.map(|secret| {
        let demo = Demo::new(secret.expose(), issuer.clone());
        Arc::new(demo) as Arc<dyn DemoLogin>
    });
    let (identify, mut work) = identify(config, &secrets, issuer)?;
    let files = file_parts(config)?;

    // From here on signals are ours; before, they end the process, which holds nothing yet.
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_io()
        .enable_time()
        .build()
        .map_err(|error| Failure::System("start a runtime", error))?;
    let mut signals = {
        let _inside = runtime.enter();
        Signals::listen().map_err(|error| Failure::System("listen to signals", error))?
    };

    let core = core_config(config, store.as_ref());
    let relay = start_relay(config, &core)?;
    let view = Arc::new(View {
        name: config.node.clone(),
        draining: AtomicBool::new(false),
        shards: OnceLock::new(),
    });
    let origins = allowed_origins(&config.origins);
    let drain = Arc::new(Notify::new());
    let (seen, asked) = (view.clone(), view.clone());
    let uploads = uploads_of(config, &store, &files);
    let (ask_files, files_asked) = uploads::way();
    work.push(Box::pin(uploads.clone().run(files_asked)));
    work.push(Box::pin(uploads.clone().remove_unused()));
    let upkeep = upkeep_parts(config, &view, uploads);
    let (upkeep_wake, serves) = (upkeep.wake.clone(), upkeep.serves.clone());
    let parts = Parts {
        node: view.clone(),
        store: store.clone(),
        demo,
        rejoin: Arc::new(move |stream, read| match seen.shards.get() {
            Some(shards) => shards.join(stream, read),
            None => Err(stream),
        }),
        asks: Arc::new(move |ask| match asked.shards.get() {
            Some(shards) => shards.ask(ask),
            None => false,
        }),
        identify: identify.clone(),
        main_app_url: config.main_app_url.clone(),
        admin: admin_parts(config, &upkeep, &drain),
        upkeep: Some(upkeep),
        webhooks: webhook_parts(config, &view, &upkeep_wake)?,
        files,
        hooks: hook_parts(config, &serves)?,
        origins: Arc::new(move |origin, host| origins.allow(origin, host)),
    };
    if let Some(hooks) = &parts.hooks {
        runtime.block_on(hooks::want(hooks, store.clone()));
    }
    let (control_plane, door) = serve::start(parts, work)
        .map_err(|error| Failure::System("start the control plane", error))?;
    let shards = shard::start(ShardsConfig {
        listen: config.listen,
        // The kernel places them well, and a container need not own the cores numbered from 0.
        pinned: false,
        core,
        seed: uuid::Uuid::new_v4().as_u64_pair().0,
        origins: allowed_origins(&config.origins),
        connections_max,
        peers: PeerLimits {
            per_address_max: config.connections_per_ip,
            trusted: config.trusted_proxies.clone(),
        },
        store: store.clone(),
        relay: relay.clone(),
        identify,
        files: Arc::new(ask_files),
        handoff: Arc::new(move |stream, read| door.hand_over(stream, read)),
    })
    .map_err(Failure::Shards)?;
    let handle = view.shards.get_or_init(|| shards.handle()).clone();
    announce(config, shards.address(), connections_max);
    let stopped = until_stopped(config, &view, &handle, shards, &mut signals, &drain);
    let result = runtime.block_on(stopped);
    // Answers under way are ended, then the store: its last user is gone.
    drop(control_plane);
    drop(relay);
    drop(store);
    result
}

/// For what goes on beside the requests.
fn upkeep_parts(config: &Config, view: &Arc<View>, uploads: Uploads) -> UpkeepParts {
    let asked = view.clone();
    UpkeepParts {
        shards: config.shards,
        serves: Arc::new(move |shard, ask| match asked.shards.get() {
            Some(shards) => shards.serve(shard, ask),
            None => false,
        }),
        wake: Arc::new(Notify::new()),
        uploads,
        retention_days: config.retention_days,
    }
}

/// For those who run the service, if they have tokens.
fn admin_parts(config: &Config, upkeep: &UpkeepParts, drain: &Arc<Notify>) -> Option<AdminParts> {
    if config.admin_tokens.is_empty() {
        return None;
    }
    let (drain, drain_ms) = (drain.clone(), config.drain_ms);
    Some(AdminParts {
        tokens: Tokens::new(config.admin_tokens.iter().map(Secret::expose)),
        failures_per_min: config.admin_failures_per_min,
        trusted: config.trusted_proxies.clone(),
        shards: config.shards,
        serves: upkeep.serves.clone(),
        erasures: upkeep.wake.clone(),
        retention_days: config.retention_days,
        drain: Arc::new(move || {
            drain.notify_one();
            drain_ms
        }),
    })
}

/// For other services, as far as they have secrets.
fn webhook_parts(
    config: &Config,
    view: &Arc<View>,
    erasures: &Arc<Notify>,
) -> Result<WebhookParts, Failure> {
    let secrets = |name, secrets: &[Secret]| {
        let of = || WebhookSecrets::new(secrets.iter().map(Secret::expose_text));
        let secrets = (!secrets.is_empty()).then(of).transpose();
        match secrets {
            Ok(secrets) => Ok(secrets.map(Arc::new)),
            Err(problem) => Err(Failure::Url(name, problem)),
        }
    };
    let asked = view.clone();
    Ok(WebhookParts {
        map: secrets("CAFFIS_WEBHOOK_SECRETS_MAP", &config.webhook_secrets_map)?,
        main_app: secrets(
            "CAFFIS_WEBHOOK_SECRETS_MAIN_APP",
            &config.webhook_secrets_main_app,
        )?,
        shards: config.shards,
        has_peers: matches!(config.database, Database::Postgres(_)),
        erasures: erasures.clone(),
        serves: Arc::new(move |shard, ask| match asked.shards.get() {
            Some(shards) => shards.serve(shard, ask),
            None => false,
        }),
    })
}

/// For those whom we tell, if there are any.
fn hook_parts(config: &Config, serves: &Arc<Serves>) -> Result<Option<HookParts>, Failure> {
    let name = "CAFFIS_WEBHOOK_OUT_URL";
    let Some(url) = &config.webhook_out_url else {
        return Ok(None);
    };
    let endpoint = Endpoint::new(url).map_err(|problem| Failure::Url(name, problem))?;
    let secrets = config.webhook_out_secrets.iter().map(Secret::expose_text);
    let secrets = WebhookSecrets::new(secrets)
        .map_err(|problem| Failure::Url("CAFFIS_WEBHOOK_OUT_SECRETS", problem))?;
    let allowed = config.webhook_allow_cidrs.clone();
    let guard = Guard::new(move |address| allowed.iter().any(|own| own.contains(address)));
    let client = Client::new().map_err(|error| Failure::Tls(error.to_string()))?;
    let client = client.guarded(guard);
    let post = move |posted: HookPosted| -> HookPosting {
        let (client, endpoint) = (client.clone(), endpoint.clone());
        Box::pin(async move {
            let answer = client.post_json(&endpoint, &posted.headers, posted.body);
            answer.await.map(|answer| HookTold {
                status: answer.status,
                retry_after_s: answer.retry_after_s,
            })
        })
    };
    Ok(Some(HookParts {
        holder: uuid::Uuid::new_v4(),
        secrets: Arc::new(secrets),
        post: Arc::new(post),
        shards: config.shards,
        serves: serves.clone(),
        grace_ms: config.push_grace_ms,
        retry_ms: config.webhook_out_retry_ms,
        attempts_max: config.webhook_out_attempts,
        previews: config.push_preview,
        counts: Arc::default(),
    }))
}

/// Opens the store that the settings name, at its newest schema.
///
/// # Errors
/// What the backend says.
pub fn open_store(config: &Config) -> Result<Arc<dyn Store>, StoreProblem> {
    Ok(match &config.database {
        Database::Sqlite(folder) => {
            let mut options = SqliteOptions::default();
            options.db.sabotage = config.sabotage;
            Arc::new(SqliteStore::open(folder, options)?)
        }
        Database::Postgres(url) => Arc::new(PostgresStore::open(postgres_options(config, url))?),
    })
}

fn postgres_options(config: &Config, url: &Secret) -> PostgresOptions {
    PostgresOptions {
        must_be_durable: config.mode == Mode::Production,
        ..PostgresOptions::new(url.expose_text())
    }
}

/// Brings the store to the newest schema, without a node.
///
/// # Errors
/// What the backend says.
pub fn migrate(config: &Config) -> Result<(), StoreProblem> {
    match &config.database {
        // Opening it is all: there is one process, and it migrates.
        Database::Sqlite(_) => open_store(config).map(drop),
        Database::Postgres(url) => Ok(postgres::migrate(&postgres_options(config, url))?),
    }
}

/// Copies the embedded store to a new file, also while a node runs.
///
/// # Errors
/// What the backend says; PostgreSQL has tools of its own for this.
pub fn backup(config: &Config, file: &Path) -> Result<(), StoreProblem> {
    match &config.database {
        Database::Sqlite(folder) => Ok(sqlite::backup(folder, file)?),
        Database::Postgres(_) => Err("PostgreSQL is backed up by pg_basebackup or pg_dump".into()),
    }
}

/// Makes the embedded store from a backup; gives its new epoch.
///
/// # Errors
/// What the backend says; PostgreSQL has tools of its own for this.
pub fn restore(config: &Config, file: &Path) -> Result<Epoch, StoreProblem> {
    match &config.database {
        Database::Sqlite(folder) => Ok(sqlite::restore(folder, file)?),
        Database::Postgres(_) => {
            Err("PostgreSQL is restored by its own tools, then `caffis-chat renew-epoch`".into())
        }
    }
}

/// What the node needs of its host.
pub fn needs(config: &Config) -> Needs {
    Needs {
        listen: config.listen,
        data_dir: config.data_dir.clone(),
        embedded_store: matches!(config.database, Database::Sqlite(_)),
        shards: config.shards,
        connections_max: config.connections_max,
        connections_min: CONNECTIONS_MIN,
        descriptors_reserved: descriptors_reserved(config),
        locked_bytes_per_shard: LOCKED_BYTES_MAX as u64,
        backlog: shard::BACKLOG.unsigned_abs().into(),
        outbox_bytes: config.outbox_node_bytes as u64,
        connections_per_ip: config.connections_per_ip,
        trusts_other_hosts: config.trusted_proxies.iter().any(|it| !it.is_loopback()),
    }
}

/// Descriptors that are no WebSockets of clients.
fn descriptors_reserved(config: &Config) -> usize {
    CONNECTIONS_MAX + DESCRIPTORS_RESERVED + DESCRIPTORS_PER_SHARD * usize::from(config.shards)
}

/// How many connections to take, as far as open files allow.
fn connections_max(config: &Config) -> Result<usize, Failure> {
    let limit = sys::raise_descriptors()
        .map_err(|error| Failure::System("raise the limit of open files", error))?;
    let limit = usize::try_from(limit).unwrap_or(usize::MAX);
    let possible = limit.saturating_sub(descriptors_reserved(config));
    let wanted = config.connections_max.unwrap_or(possible);
    if wanted > possible || possible < CONNECTIONS_MIN {
        let wanted = wanted.max(CONNECTIONS_MIN);
        return Err(Failure::Descriptors { wanted, limit });
    }
    Ok(wanted)
}

/// Who checks tokens, and what it has to do beside.
fn identify(
    config: &Config,
    secrets: &[Secret],
    issuer: Issuer,
) -> Result<(Arc<dyn Identify>, Vec<Work>), Failure> {
    let hs256 = |issuer| Hs256::new(secrets.iter().map(Secret::expose), issuer);
    if config.jwks_url.is_none() && config.introspection_url.is_none() {
        return Ok((Arc::new(hs256(issuer)), Vec::new()));
    }
    let endpoint = |name, url: &Option<String>| {
        let endpoint = url.as_deref().map(Endpoint::new).transpose();
        endpoint.map_err(|problem| Failure::Url(name, problem))
    };
    let remote = Remote::new(RemoteOptions {
        secrets: (!secrets.is_empty()).then(|| hs256(issuer.clone())),
        issuer,
        jwks: endpoint("CAFFIS_JWKS_URL", &config.jwks_url)?,
        introspection: endpoint("CAFFIS_INTROSPECTION_URL", &config.introspection_url)?,
        service_token: (config.main_app_token.as_ref()).map(|it| it.expose_text().to_owned()),
        clock: Arc::new(unix_now),
    });
    let client = Client::new().map_err(|error| Failure::Tls(error.to_string()))?;
    let work = Box::pin(remote.clone().run(client));
    Ok((Arc::new(remote), vec![work]))
}

fn unix_now() -> UnixMs {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    // A clock before 1970 finds every token not yet valid.
    UnixMs(since.map_or(0, |since| since.as_millis() as u64))
}

/// The secrets of tokens: those given, or the one that a development node keeps for itself.
fn secrets(config: &Config) -> io::Result<Vec<Secret>> {
    if !config.jwt_secrets.is_empty() {
        return Ok(config.jwt_secrets.clone());
    }
    if config.mode == Mode::Production {
        // Then its tokens are checked otherwise.
        return Ok(Vec::new());
    }
    std::fs::create_dir_all(&config.data_dir)?;
    let secret = secret_file::read_or_create(&config.data_dir)?;
    Ok(vec![Secret::new(secret)])
}

fn core_config(config: &Config, store: &dyn Store) -> CoreConfig {
    let shards: ShardIx = config.shards;
    let mut core = CoreConfig::new(&config.node, shards, store.epoch());
    core.durability = store.durability();
    core.peers = match &config.database {
        // The folder belongs to one process.
        Database::Sqlite(_) => Peers::None,
        Database::Postgres(_) if config.redis_urls.is_empty() => Peers::Store,
        Database::Postgres(_) => Peers::Relay,
    };
    core.run = uuid::Uuid::new_v4().as_u64_pair().0;
    core.batch_spacing_us = config.batch_spacing_us.unwrap_or(match &config.database {
        Database::Sqlite(_) => limits::BATCH_SPACING_US,
        // A commit takes longer than that by itself, so batches grow without waiting.
        Database::Postgres(_) => 0,
    });
    core.sends_per_10s = config.sends_per_10s;
    core.commands_per_10s = config.commands_per_10s;
    core.connections_per_user = config.connections_per_user;
    core.outbox_shard_bytes_max = config.outbox_node_bytes / usize::from(shards);
    core.sabotage = config.sabotage;
    core
}

/// The way to other nodes, if there is one.
fn start_relay(config: &Config, core: &CoreConfig) -> Result<Option<Arc<dyn Relay>>, Failure> {
    if core.peers != Peers::Relay {
        return Ok(None);
    }
    let urls: Vec<&str> = config.redis_urls.iter().map(Secret::expose_text).collect();
    let relay = RedisRelay::start(&urls, &config.redis_prefix, core.run)
        .map_err(|error| Failure::System("start the relay", error))?;
    Ok(Some(Arc::new(relay)))
}

fn allowed_origins(origins: &Origins) -> AllowedOrigins {
    match origins {
        Origins::SameHostOrLoopback => AllowedOrigins::SameHostOrLoopback,
        Origins::Listed(list) => AllowedOrigins::List(list.clone()),
    }
}

/// Says that the node is ready: to the log, and to the person who started it by hand.
fn announce(config: &Config, address: SocketAddr, connections_max: usize) {
    tracing::info!(
        node = config.node,
        %address,
        shards = config.shards,
        connections_max,
        mode = ?config.mode,
        "ready"
    );
    if config.mode == Mode::Development {
        let folder = config.data_dir.display();
        // Nobody may be listening, which is no reason not to run.
        let _unread = writeln!(
            io::stdout(),
            "Caffis Chat is ready: http://{address}/ (data in {folder}; Ctrl-C stops it)"
        );
    }
}

/// SIGTERM and SIGINT.
struct Signals {
    terminate: tokio::signal::unix::Signal,
    interrupt: tokio::signal::unix::Signal,
}

impl Signals {
    fn listen() -> io::Result<Signals> {
        Ok(Signals {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
        })
    }

    /// The next one, with the exit code of a process that it ends.
    async fn next(&mut self) -> (&'static str, i32) {
        tokio::select! {
            _ = self.terminate.recv() => ("SIGTERM", 143),
            _ = self.interrupt.recv() => ("SIGINT", 130),
        }
    }
}

/// Waits for a signal or for a shard that fails, and then for the end of all shards.
async fn until_stopped(
    config: &Config,
    view: &View,
    handle: &Handle,
    shards: Shards,
    signals: &mut Signals,
    drain: &Notify,
) -> Result<(), Failure> {
    let (ended, mut end) = oneshot::channel();
    thread::Builder::new()
        .name("shards-end".to_owned())
        .spawn(move || {
            // Nobody waits any more when the drain was overdue.
            let _unheard = ended.send(shards.join());
        })
        .map_err(|error| Failure::System("start a thread", error))?;
    tokio::select! {
        result = &mut end => return joined(result),
        (name, _) = signals.next() => {
            tracing::info!(signal = name, drain_ms = config.drain_ms, "draining");
        }
        () = drain.notified() => {
            tracing::info!(drain_ms = config.drain_ms, "draining, as the Admin API was told");
        }
    }
    view.draining.store(true, Ordering::Release);
    handle.drain(config.drain_ms);
    let deadline = Duration::from_millis(config.drain_ms) + DRAIN_GRACE;
    tokio::select! {
        result = &mut end => joined(result),
        (name, code) = signals.next() => {
            tracing::warn!(signal = name, "stopped without waiting");
            // What is acknowledged is on disk, and what is not the clients will send again.
            std::process::exit(code);
        }
        () = tokio::time::sleep(deadline) => {
            handle.stop();
            Err(Failure::DrainOverdue)
        }
    }
}

fn joined(
    result: Result<Result<(), ShardError>, oneshot::error::RecvError>,
) -> Result<(), Failure> {
    match result {
        Ok(result) => result.map_err(Failure::Shards),
        Err(_) => unreachable!("the thread that joins always answers"),
    }
}
