//! The one table of settings, and everything that is made from it: the flags, `--help`, the
//! example file, and the gathering of raw values from flags, environment and file.
//!
//! To add a setting: one line in [`SETTINGS`], one field in [`super::Config`].
//!
//! Next: [`super::Config`], which gives the raw values their types.

use crate::protocol::{asyncapi, openapi};
use clap::{Arg, ArgAction, ArgMatches, Command};
use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::PathBuf;

/// What a value looks like in the file.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Kind {
    /// A string.
    Text,
    /// An integer of at least 0.
    Integer,
    /// `true` or `false`.
    Boolean,
    /// An array of strings; comma-separated elsewhere.
    List,
    /// Like `List`, and never shown.
    SecretList,
}

/// One setting. Its environment variable is `CAFFIS_` and the name in capitals; its flag is the
/// name with dashes.
#[derive(Clone, Copy, Debug)]
pub struct Setting {
    /// Its name in the file.
    pub name: &'static str,
    /// What its value looks like.
    pub kind: Kind,
    /// The default as people read it.
    pub default: &'static str,
    /// A value for the example file, as TOML.
    pub example: &'static str,
    /// What it does.
    pub help: &'static str,
}

/// All of them, in the order in which `--help` and the example file show them.
pub const SETTINGS: &[Setting] = &[
    Setting {
        name: "listen",
        kind: Kind::Text,
        default: "127.0.0.1:8080",
        example: "\"127.0.0.1:8080\"",
        help: "Address and port to listen on, for WebSocket and HTTP alike.",
    },
    Setting {
        name: "node",
        kind: Kind::Text,
        default: "the host's name",
        example: "\"n1\"",
        help: "Name of this node, as clients and operators see it.",
    },
    Setting {
        name: "shards",
        kind: Kind::Integer,
        default: "the number of cores",
        example: "2",
        help: "Shards: threads that own connections and rooms, each on a core of its own.",
    },
    Setting {
        name: "mode",
        kind: Kind::Text,
        default: "development",
        example: "\"development\"",
        help: "development or production. Production refuses to start with anything insecure.",
    },
    Setting {
        name: "data_dir",
        kind: Kind::Text,
        default: "./data",
        example: "\"./data\"",
        help: "Folder of the embedded store, and of files where no object store is set.",
    },
    Setting {
        name: "database_url",
        kind: Kind::Text,
        default: "sqlite:",
        example: "\"sqlite:\"",
        help: "The store: sqlite: is the embedded one in the data folder, sqlite:FOLDER in another; \
               postgres://user:password@host/database is PostgreSQL, with sslmode and sslrootcert as \
               libpq reads them. A password is better given by environment or file.",
    },
    Setting {
        name: "s3_endpoint",
        kind: Kind::Text,
        default: "none: files are kept in the data folder of this node",
        example: "\"https://s3.eu-central-1.amazonaws.com\"",
        help: "The object store that files are kept in: any S3, as scheme://host[:port]. Browsers upload to \
               it and fetch from it directly. Its buckets are made by `caffis-chat storage init`. Several \
               nodes need one.",
    },
    Setting {
        name: "s3_public_endpoint",
        kind: Kind::Text,
        default: "that of s3_endpoint",
        example: "\"https://files.example.org\"",
        help: "Where browsers find the object store, if they find it elsewhere than this node does.",
    },
    Setting {
        name: "s3_region",
        kind: Kind::Text,
        default: "us-east-1",
        example: "\"eu-central-1\"",
        help: "The region of the object store.",
    },
    Setting {
        name: "s3_access_key",
        kind: Kind::Text,
        default: "none",
        example: "\"caffis-chat\"",
        help: "Who this service is to the object store.",
    },
    Setting {
        name: "s3_secret_key",
        kind: Kind::Text,
        default: "none",
        example: "\"from-the-object-store\"",
        help: "The secret that goes with it. Better given by environment or file.",
    },
    Setting {
        name: "s3_bucket_prefix",
        kind: Kind::Text,
        default: "none",
        example: "\"example-\"",
        help: "What the names of the buckets (chat-images, chat-files, chat-voice) begin with: where they are \
               shared with others, as all of AWS shares them.",
    },
    Setting {
        name: "cdn_base_url",
        kind: Kind::Text,
        default: "none: downloads are signed URLs of the object store",
        example: "\"https://cdn.example.org\"",
        help: "What the URLs of downloads begin with; bucket and key follow. Whoever knows such a URL can \
               fetch the file for as long as it is there; nobody can guess one.",
    },
    Setting {
        name: "public_url",
        kind: Kind::Text,
        default: "none: URLs of files in the data folder are paths on the server that was asked",
        example: "\"https://chat.example.org\"",
        help: "Where this service is, as others see it: scheme://host[:port].",
    },
    Setting {
        name: "redis_url",
        kind: Kind::SecretList,
        default: "none: without it nodes see what the others did a second later",
        example: "[\"redis://127.0.0.1:6379\"]",
        help: "The relay between nodes: redis:// or rediss://, one Redis, or some nodes of a Redis \
               Cluster (7 or later), which tell of the others. A hint only: without it everything \
               arrives, later.",
    },
    Setting {
        name: "redis_prefix",
        kind: Kind::Text,
        default: "caffis",
        example: "\"caffis\"",
        help: "What this deployment's channels begin with, where several share a Redis.",
    },
    Setting {
        name: "jwt_secret",
        kind: Kind::SecretList,
        default: "in development, a random one kept in the data folder",
        example: "[\"at least 32 bytes from a generator\"]",
        help: "Secrets of HS256 tokens. Several may be given for rotation; the first one signs. \
               Better given by environment or file: flags are seen by other users of the machine.",
    },
    Setting {
        name: "jwt_issuer",
        kind: Kind::Text,
        default: "caffis",
        example: "\"caffis\"",
        help: "The `iss` that tokens must have.",
    },
    Setting {
        name: "jwt_audience",
        kind: Kind::Text,
        default: "caffis-chat",
        example: "\"caffis-chat\"",
        help: "The `aud` that tokens must have, or hold.",
    },
    Setting {
        name: "jwks_url",
        kind: Kind::Text,
        default: "none",
        example: "\"https://app.example.org/.well-known/jwks.json\"",
        help: "Where the Main App has the public keys of its tokens (RS256, ES256, EdDSA). They are \
               fetched again every 10 minutes and for a key that is not known, and kept while it is \
               away.",
    },
    Setting {
        name: "introspection_url",
        kind: Kind::Text,
        default: "none",
        example: "\"https://app.example.org/oauth/introspect\"",
        help: "Where to ask the Main App whether a token is still good (RFC 7662). What it says \
               holds for 30 s; while it is away nobody else can sign in.",
    },
    Setting {
        name: "main_app_token",
        kind: Kind::Text,
        default: "none",
        example: "\"from-the-main-app\"",
        help: "Who this service is to the Main App, as Authorization: Bearer. Better given by \
               environment or file.",
    },
    Setting {
        name: "webhook_secrets_map",
        kind: Kind::SecretList,
        default: "none: POST /v1/webhooks/map is refused",
        example: "[\"whsec_b25seSBhbiBleGFtcGxlOiBtYWtlIHlvdXIgb3duISE=\"]",
        help: "Secrets of the webhooks of the Map Service. Two while they are rotated.",
    },
    Setting {
        name: "webhook_secrets_main_app",
        kind: Kind::SecretList,
        default: "none: POST /v1/webhooks/main-app is refused",
        example: "[\"whsec_b25seSBhbiBleGFtcGxlOiBtYWtlIHlvdXIgb3duISE=\"]",
        help: "Secrets of the webhooks of the Main App. Two while they are rotated.",
    },
    Setting {
        name: "webhook_out_url",
        kind: Kind::Text,
        default: "none: nobody is told",
        example: "\"https://app.example.org/webhooks/chat\"",
        help: "Who is told of pushes to make, new rooms and reported messages: each a POST, signed as Standard \
               Webhooks say.",
    },
    Setting {
        name: "webhook_out_secrets",
        kind: Kind::SecretList,
        default: "none",
        example: "[\"whsec_b25seSBhbiBleGFtcGxlOiBtYWtlIHlvdXIgb3duISE=\"]",
        help: "Secrets that sign them: all of them do, so two while they are rotated.",
    },
    Setting {
        name: "webhook_allow_cidrs",
        kind: Kind::List,
        default: "none; in development this machine",
        example: "[\"10.1.0.0/16\"]",
        help: "Networks beside the public internet where webhook_out_url may lead, or none.",
    },
    Setting {
        name: "webhook_out_attempts",
        kind: Kind::Integer,
        default: "40",
        example: "40",
        help: "Attempts before a webhook is given up. It can be sent again by the Admin API for 7 days.",
    },
    Setting {
        name: "webhook_out_retry_ms",
        kind: Kind::Integer,
        default: "2000",
        example: "2000",
        help: "Wait after the first attempt that failed, ms. Then four times that, and so on, up to 10 min.",
    },
    Setting {
        name: "push_grace_ms",
        kind: Kind::Integer,
        default: "3000",
        example: "3000",
        help: "A message is pushed after this time, ms, to those who have no connection then and have not read it.",
    },
    Setting {
        name: "push_preview",
        kind: Kind::Boolean,
        default: "true",
        example: "true",
        help: "Whether a push shows the beginning of the message.",
    },
    Setting {
        name: "admin_token",
        kind: Kind::SecretList,
        default: "none: there is no Admin API",
        example: "[\"at-least-32-characters-from-a-generator\"]",
        help: "Service tokens of the Admin API (/v1/admin/…), of at least 32 characters. Several may be given \
               for rotation. Better given by environment or file: flags are seen by other users of the machine.",
    },
    Setting {
        name: "admin_failures_per_min",
        kind: Kind::Integer,
        default: "10",
        example: "10",
        help: "Wrong service tokens that one address may give in a minute; then it is answered 429, whatever \
               it gives.",
    },
    Setting {
        name: "retention_days",
        kind: Kind::Integer,
        default: "0: for ever",
        example: "365",
        help: "For how many days a room keeps its messages, unless it has an age of its own, which the Admin \
               API sets. Older ones are dropped within an hour or so, for good. The same on all nodes.",
    },
    Setting {
        name: "allowed_origins",
        kind: Kind::List,
        default: "in development, this server's own and those of loopback hosts",
        example: "[\"https://app.example.org\"]",
        help: "Origins whose pages may connect, as scheme://host[:port]. Programs that send no \
               Origin are not browsers and may connect.",
    },
    Setting {
        name: "allow_insecure",
        kind: Kind::Boolean,
        default: "false",
        example: "false",
        help: "Lets development mode listen on other addresses than loopback.",
    },
    Setting {
        name: "main_app_url",
        kind: Kind::Text,
        default: "none: the page has the demo login",
        example: "\"https://app.example.org\"",
        help: "Origin of the Main App, where people sign in. The page asks POST /v1/token there, \
               with the Main App's own cookies, for each token that it needs.",
    },
    Setting {
        name: "demo_login",
        kind: Kind::Boolean,
        default: "true in development",
        example: "true",
        help: "POST /v1/demo/login, which gives anybody a user. Production refuses it.",
    },
    Setting {
        name: "sends_per_10s",
        kind: Kind::Integer,
        default: "50",
        example: "50",
        help: "Messages that one user may send in 10 s, on all connections and over HTTP.",
    },
    Setting {
        name: "commands_per_10s",
        kind: Kind::Integer,
        default: "200",
        example: "200",
        help: "Commands that one user may give in 10 s, sends included.",
    },
    Setting {
        name: "upload_image_bytes",
        kind: Kind::Integer,
        default: "10485760",
        example: "10485760",
        help: "Bytes of an image that users may send.",
    },
    Setting {
        name: "upload_file_bytes",
        kind: Kind::Integer,
        default: "52428800",
        example: "52428800",
        help: "Bytes of a file that users may send.",
    },
    Setting {
        name: "upload_voice_bytes",
        kind: Kind::Integer,
        default: "10485760",
        example: "10485760",
        help: "Bytes of a voice note that users may send.",
    },
    Setting {
        name: "uploads_per_day",
        kind: Kind::Integer,
        default: "500",
        example: "500",
        help: "Images, files and voice notes that one user may bring in 24 h.",
    },
    Setting {
        name: "upload_bytes_per_day",
        kind: Kind::Integer,
        default: "1073741824",
        example: "1073741824",
        help: "Bytes that one user may bring in 24 h, in images, files and voice notes.",
    },
    Setting {
        name: "batch_spacing_us",
        kind: Kind::Integer,
        default: "4000; 0 with PostgreSQL",
        example: "4000",
        help: "A busy shard begins its commits so far apart, µs: more saves CPU, less saves time. 0: as soon as the one before is done.",
    },
    Setting {
        name: "drain_ms",
        kind: Kind::Integer,
        default: "10000",
        example: "10000",
        help: "Time over which connections are asked to leave when the node stops, ms.",
    },
    Setting {
        name: "connections_max",
        kind: Kind::Integer,
        default: "the limit of open files, less a reserve",
        example: "15000",
        help: "WebSocket connections taken at most.",
    },
    Setting {
        name: "connections_per_ip",
        kind: Kind::Integer,
        default: "2000",
        example: "2000",
        help: "Sockets of one IP address (of one /64 of IPv6) on this node; a quarter of them may be \
               such that have not signed in. 0: no limit. Further ones are answered 429.",
    },
    Setting {
        name: "connections_per_user",
        kind: Kind::Integer,
        default: "20",
        example: "20",
        help: "Connections of one user on this node. 0: no limit. When a further one signs in, the \
               oldest is closed 4103.",
    },
    Setting {
        name: "trusted_proxies",
        kind: Kind::List,
        default: "this machine: 127.0.0.0/8 and ::1",
        example: "[\"10.0.0.0/8\"]",
        help: "Networks of your own proxies and balancers, or none. They are not counted \
               themselves: the right-most address of X-Forwarded-For that is not one of them is.",
    },
    Setting {
        name: "outbox_node_bytes",
        kind: Kind::Integer,
        default: "134217728",
        example: "134217728",
        help: "Bytes that may wait for all clients together; a shard has its share.",
    },
    Setting {
        name: "log",
        kind: Kind::Text,
        default: "info",
        example: "\"info,caffis_chat=debug\"",
        help: "Filter of the log: a level, or target=level, comma-separated.",
    },
];

/// Only in test builds: not in the example file.
#[cfg(feature = "sabotage")]
const SABOTAGE: Setting = Setting {
    name: "sabotage",
    kind: Kind::Text,
    default: "none",
    example: "\"gate_skipped\"",
    help: "Test builds only: the fault to put in.",
};

/// The settings of this build.
pub fn of_this_build() -> impl Iterator<Item = &'static Setting> {
    let more: &'static [Setting] = &[
        #[cfg(feature = "sabotage")]
        SABOTAGE,
    ];
    SETTINGS.iter().chain(more)
}

impl Setting {
    /// The environment variable.
    pub fn env(&self) -> String {
        format!("CAFFIS_{}", self.name.to_ascii_uppercase())
    }

    /// The flag, without its dashes.
    pub fn flag(&self) -> String {
        self.name.replace('_', "-")
    }
}

/// The command line.
pub fn command() -> Command {
    let mut command = Command::new("caffis-chat")
        .version(env!("CARGO_PKG_VERSION"))
        .about("The chat service of Caffis")
        .after_help(
            "A flag wins over its environment variable, which wins over the file, which wins \
             over the default. Comma-separate what takes several values.",
        )
        .subcommand(Command::new("config").about("Prints an example configuration file"))
        .subcommand(Command::new("asyncapi").about("Prints the AsyncAPI document"))
        .subcommand(Command::new("openapi").about("Prints the OpenAPI document"))
        .subcommand(
            Command::new("migrate")
                .about("Brings the store to the newest schema, and stops; a start does it too"),
        )
        .subcommand(
            Command::new("doctor")
                .about("Tells what this host lacks for a node with these settings")
                .arg(
                    Arg::new("json")
                        .long("json")
                        .action(ArgAction::SetTrue)
                        .help("One JSON object instead of a table"),
                ),
        )
        .subcommand(
            Command::new("health")
                .about("Asks the node that runs with these settings whether it can take users"),
        )
        .subcommand(
            Command::new("backup")
                .about("Writes the embedded store to a new file, also while a node runs")
                .arg(Arg::new("FILE").required(true)),
        )
        .subcommand(
            Command::new("restore")
                .about("Makes the embedded store from a backup, with a new epoch")
                .arg(Arg::new("FILE").required(true)),
        )
        .subcommand(
            Command::new("storage")
                .about("The place where files are kept")
                .subcommand_required(true)
                .subcommand(Command::new("init").about(
                    "Makes the buckets and configures them (private, CORS, lifecycle); done again it \
                     changes nothing",
                )),
        )
        .subcommand(Command::new("renew-epoch").about(
            "Tells every client that the history was replaced: after the database was restored \
             by its own tools",
        ))
        .arg(
            Arg::new("config")
                .long("config")
                .value_name("FILE")
                .help("Configuration file (TOML) [env: CAFFIS_CONFIG] [default: none]"),
        );
    for setting in of_this_build() {
        let help = format!(
            "{} [env: {}] [default: {}]",
            setting.help,
            setting.env(),
            setting.default
        );
        let arg = Arg::new(setting.name)
            .long(setting.flag())
            .value_name("VALUE")
            .action(ArgAction::Set)
            .help(help);
        command = command.arg(match setting.kind {
            // `--allow-insecure` alone is `true`.
            Kind::Boolean => arg.num_args(0..=1).default_missing_value("true"),
            Kind::Text | Kind::Integer | Kind::List | Kind::SecretList => arg,
        });
    }
    command
}

/// The example file: what `caffis-chat config` prints and `config.example.toml` holds.
pub fn example() -> String {
    let mut text = String::from(
        "# Settings of caffis-chat, made by `caffis-chat config`. Every line is optional.\n\
         # A flag wins over its environment variable, which wins over this file, which wins over\n\
         # the default.\n",
    );
    for setting in SETTINGS {
        text.push('\n');
        for line in wrapped(setting.help, 96) {
            let _ = writeln!(text, "# {line}");
        }
        let (env, flag) = (setting.env(), setting.flag());
        let _ = writeln!(text, "# Default: {}.", setting.default);
        let _ = writeln!(text, "# Environment: {env}, flag: --{flag}");
        let _ = writeln!(text, "#{} = {}", setting.name, setting.example);
    }
    text
}

fn wrapped(text: &str, width: usize) -> Vec<String> {
    let mut lines = vec![String::new()];
    for word in text.split_whitespace() {
        let line = lines.last_mut().expect("there is always a line");
        if !line.is_empty() && line.len() + 1 + word.len() > width {
            lines.push(word.to_owned());
        } else {
            if !line.is_empty() {
                line.push(' ');
            }
            line.push_str(word);
        }
    }
    lines
}

/// Where values come from. Tests fill it by hand; [`super::Config::load`] from the process.
#[derive(Debug, Default)]
pub struct Sources {
    /// What follows the program's name on the command line.
    pub args: Vec<String>,
    /// The environment; only `CAFFIS_…` is looked at.
    pub env: BTreeMap<String, String>,
}

/// A raw value and where it came from.
#[derive(Clone, PartialEq, Eq)]
pub struct Raw {
    /// As the environment would hold it.
    pub value: String,
    /// "flag --listen", "CAFFIS_LISTEN", "file".
    pub from: String,
}

/// The raw values of all sources, and what was wrong with the sources themselves.
#[derive(Default)]
pub struct Gathered {
    /// By the setting's name.
    pub values: BTreeMap<&'static str, Raw>,
    /// What prevents a start.
    pub problems: Vec<String>,
    /// What is odd, and said in the log.
    pub warnings: Vec<String>,
}

/// What a subcommand does with the settings, instead of running a node.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Task {
    /// Look whether this host can run the node.
    Doctor {
        /// Tell in JSON.
        json: bool,
    },
    /// Ask the node that runs whether it can take users.
    Health,
    /// Bring the store to the newest schema.
    Migrate,
    /// Write the embedded store to this file.
    Backup(PathBuf),
    /// Make the embedded store from this file.
    Restore(PathBuf),
    /// Make and configure the buckets.
    StorageInit,
    /// Give the history another epoch.
    RenewEpoch,
}

/// What the command line asks for.
pub enum Asked {
    /// To run.
    Run(Gathered),
    /// To do this and stop.
    Do(Gathered, Task),
    /// To print this and stop.
    Print(String),
}

/// Reads the sources. `read_file` reads the configuration file.
///
/// # Errors
/// A command line that makes no sense; also `--help` and `--version`, which clap tells this way.
pub fn gather(
    sources: &Sources,
    read_file: impl FnOnce(&str) -> std::io::Result<String>,
) -> Result<Asked, clap::Error> {
    let args = std::iter::once("caffis-chat").chain(sources.args.iter().map(String::as_str));
    let matches = command().try_get_matches_from(args)?;
    match matches.subcommand_name() {
        Some("config") => return Ok(Asked::Print(example())),
        Some("openapi") => return Ok(Asked::Print(openapi::document_text())),
        Some("asyncapi") => return Ok(Asked::Print(asyncapi::document_text())),
        Some(_) | None => (),
    }
    let gathered = gather_settings(sources, &matches, read_file);
    let file = |asked: &ArgMatches| {
        let file = asked.get_one::<String>("FILE");
        PathBuf::from(file.map_or("", String::as_str))
    };
    let task = match matches.subcommand() {
        Some(("doctor", asked)) => Task::Doctor {
            json: asked.get_flag("json"),
        },
        Some(("health", _)) => Task::Health,
        Some(("migrate", _)) => Task::Migrate,
        Some(("backup", asked)) => Task::Backup(file(asked)),
        Some(("restore", asked)) => Task::Restore(file(asked)),
        Some(("storage", _)) => Task::StorageInit,
        Some(("renew-epoch", _)) => Task::RenewEpoch,
        Some(_) | None => return Ok(Asked::Run(gathered)),
    };
    Ok(Asked::Do(gathered, task))
}

fn gather_settings(
    sources: &Sources,
    matches: &ArgMatches,
    read_file: impl FnOnce(&str) -> std::io::Result<String>,
) -> Gathered {
    let mut gathered = Gathered::default();
    let path = matches.get_one::<String>("config");
    // An empty variable is no variable: compose files write `${X:-}`.
    let variable = |name: &str| sources.env.get(name).filter(|value| !value.is_empty());
    let mut file = match path.or(variable("CAFFIS_CONFIG")) {
        None => toml::Table::new(),
        Some(path) => parse_file(path, read_file(path), &mut gathered.problems),
    };
    for setting in of_this_build() {
        let in_file = file.remove(setting.name);
        let raw = if let Some(value) = matches.get_one::<String>(setting.name) {
            Some((value.clone(), format!("flag --{}", setting.flag())))
        } else if let Some(value) = variable(&setting.env()) {
            Some((value.clone(), setting.env()))
        } else if let Some(value) = in_file {
            match file_value(setting.kind, &value) {
                Some(value) => Some((value, "the configuration file".to_owned())),
                None => {
                    let problem = format!(
                        "{} in the configuration file must be {}",
                        setting.name,
                        described(setting.kind)
                    );
                    gathered.problems.push(problem);
                    None
                }
            }
        } else {
            None
        };
        if let Some((value, from)) = raw {
            gathered.values.insert(setting.name, Raw { value, from });
        }
    }
    for name in file.keys() {
        // A typo in a file of settings that is obeyed only in part would go unnoticed for long.
        let problem = format!("the configuration file has a setting {name:?} that does not exist");
        gathered.problems.push(problem);
    }
    for name in sources
        .env
        .keys()
        .filter(|name| name.starts_with("CAFFIS_"))
    {
        let known = of_this_build().any(|setting| setting.env() == *name);
        if !known && name != "CAFFIS_CONFIG" {
            let warning = format!("the environment variable {name} is not used by this version");
            gathered.warnings.push(warning);
        }
    }
    gathered
}

fn parse_file(
    path: &str,
    text: std::io::Result<String>,
    problems: &mut Vec<String>,
) -> toml::Table {
    let parsed = match text {
        Ok(text) => text.parse::<toml::Table>().map_err(|error| {
            // The error's own display quotes the line, which may hold a secret.
            error.message().to_owned()
        }),
        Err(error) => Err(error.to_string()),
    };
    parsed.unwrap_or_else(|error| {
        problems.push(format!(
            "the configuration file {path} cannot be read: {error}"
        ));
        toml::Table::new()
    })
}

/// The value as the environment would hold it; `None` if it is of another kind.
fn file_value(kind: Kind, value: &toml::Value) -> Option<String> {
    match (kind, value) {
        (Kind::Text | Kind::List | Kind::SecretList, toml::Value::String(text)) => {
            Some(text.clone())
        }
        (Kind::Integer, toml::Value::Integer(number)) => Some(number.to_string()),
        (Kind::Boolean, toml::Value::Boolean(truth)) => Some(truth.to_string()),
        (Kind::List | Kind::SecretList, toml::Value::Array(items)) => items
            .iter()
            .map(|item| item.as_str().filter(|text| !text.contains(',')))
            .collect::<Option<Vec<_>>>()
            .map(|items| items.join(",")),
        (Kind::Text | Kind::Integer | Kind::Boolean | Kind::List | Kind::SecretList, _) => None,
    }
}

fn described(kind: Kind) -> &'static str {
    match kind {
        Kind::Text => "a string",
        Kind::Integer => "an integer",
        Kind::Boolean => "true or false",
        Kind::List | Kind::SecretList => "a string, or an array of strings without commas",
    }
}
