//! Settings: where they come from, which are refused, and that nothing secret is ever shown.
#![cfg(feature = "server")]

use caffis_chat::config::settings::{SETTINGS, Sources, Task, command, example};
use caffis_chat::config::{Config, Database, Machine, Mode, Origins, Refused, Start};
use std::io;
use std::path::Path;

const STRONG: &str = "c6a1f1d2b7e84c0f9d3a5b8e7f60412399ab";

fn read(args: &[&str], env: &[(&str, &str)], file: Option<&str>) -> Result<Config, Vec<String>> {
    let sources = Sources {
        args: args.iter().map(|arg| (*arg).to_owned()).collect(),
        env: env
            .iter()
            .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
            .collect(),
    };
    let machine = Machine {
        cores: 3,
        host: "host-1.example\n".to_owned(),
    };
    let read_file = |_: &str| {
        file.map(str::to_owned)
            .ok_or_else(|| io::Error::from(io::ErrorKind::NotFound))
    };
    match Config::read(&sources, &machine, read_file) {
        Ok(Start::Run(config)) => Ok(*config),
        Ok(Start::Print(text)) => panic!("printed {text}"),
        Ok(start @ Start::Do(..)) => panic!("{start:?}"),
        Err(Refused::Problems(problems)) => Err(problems),
        Err(Refused::Usage(error)) => panic!("{error}"),
    }
}

#[track_caller]
fn refused(args: &[&str], env: &[(&str, &str)], file: Option<&str>) -> String {
    match read(args, env, file) {
        Ok(config) => panic!("taken as {config:?}"),
        Err(problems) => problems.join("\n"),
    }
}

const PRODUCTION: &[(&str, &str)] = &[
    ("CAFFIS_MODE", "production"),
    ("CAFFIS_JWT_SECRET", STRONG),
    ("CAFFIS_ALLOWED_ORIGINS", "https://app.example.org"),
];

/// The settings of a sound production node with these put over them.
fn production(changes: &[(&'static str, &'static str)]) -> Vec<(&'static str, &'static str)> {
    PRODUCTION.iter().chain(changes).copied().collect()
}

#[test]
fn without_any_setting_it_is_a_development_node_on_loopback() {
    let config = read(&[], &[], None).expect("defaults run");
    assert_eq!(config.listen.to_string(), "127.0.0.1:8080");
    assert_eq!((config.node.as_str(), config.shards), ("host-1.example", 3));
    assert_eq!(config.mode, Mode::Development);
    assert_eq!(config.data_dir, Path::new("./data"));
    assert_eq!(config.database, Database::Sqlite("./data".into()));
    assert!(config.jwt_secrets.is_empty());
    assert_eq!(config.jwt_issuer, "caffis");
    assert_eq!(config.jwt_audience, "caffis-chat");
    assert_eq!(config.origins, Origins::SameHostOrLoopback);
    assert!(config.demo_login);
    assert_eq!((config.sends_per_10s, config.commands_per_10s), (50, 200));
    let uploads = config.uploads;
    let sizes = [uploads.image_bytes, uploads.file_bytes, uploads.voice_bytes];
    assert_eq!(sizes, [10 << 20, 50 << 20, 10 << 20]);
    assert_eq!((uploads.per_day, uploads.bytes_per_day), (500, 1 << 30));
    assert_eq!(config.batch_spacing_us, None);
    assert_eq!(config.drain_ms, 10_000);
    assert_eq!(config.connections_max, None);
    assert_eq!(config.connections_per_ip, 2_000);
    assert_eq!(config.connections_per_user, 20);
    let trusts = |address: &str| {
        let address = address.parse().expect("an address");
        config.trusted_proxies.iter().any(|it| it.contains(address))
    };
    assert!(trusts("127.0.0.1") && trusts("::1") && !trusts("10.0.0.1"));
    assert_eq!(config.outbox_node_bytes, 128 << 20);
    assert_eq!(config.log, "info");
}

#[test]
fn an_object_store_is_set_as_a_whole() {
    let alone = read(&[], &[], None).expect("runs").storage;
    assert!(alone.s3.is_none() && alone.origins().is_empty());
    let whole = [
        (
            "CAFFIS_S3_ENDPOINT",
            "https://s3.eu-central-1.amazonaws.com",
        ),
        ("CAFFIS_S3_ACCESS_KEY", "a"),
        ("CAFFIS_S3_SECRET_KEY", "hidden"),
        ("CAFFIS_CDN_BASE_URL", "https://cdn.example.org/files/"),
    ];
    let config = read(&[], &whole, None).expect("runs");
    assert!(!format!("{config:?}").contains("hidden"));
    let store = config.storage.s3.clone().expect("a store");
    assert_eq!(store.region, "us-east-1");
    let cdn = store.cdn_base_url.as_deref();
    assert_eq!(cdn, Some("https://cdn.example.org/files"));
    // Where pages upload to and fetch from: the bucket as a host, too.
    let origins = [
        "https://s3.eu-central-1.amazonaws.com",
        "https://*.s3.eu-central-1.amazonaws.com",
        "https://cdn.example.org",
    ];
    assert_eq!(config.storage.origins(), origins);
    for part in 0..3 {
        let without: Vec<_> = (0..4)
            .filter(|it| *it != part)
            .map(|it| whole[it])
            .collect();
        let problem = refused(&[], &without, None);
        assert!(problem.contains("s3_endpoint"), "{problem}");
        assert!(!problem.contains("hidden"), "{problem}");
    }
    for (name, nonsense) in [
        ("CAFFIS_S3_ENDPOINT", "s3.example.org"),
        ("CAFFIS_S3_ENDPOINT", "https://s3.example.org/path"),
        ("CAFFIS_S3_BUCKET_PREFIX", "My_"),
        ("CAFFIS_CDN_BASE_URL", "https://cdn.example.org/?a"),
        ("CAFFIS_CDN_BASE_URL", "https://a;script-src"),
        ("CAFFIS_CDN_BASE_URL", "cdn.example.org"),
        ("CAFFIS_PUBLIC_URL", "https://chat.example.org/path"),
    ] {
        let with = [&whole[..], &[(name, nonsense)]].concat();
        let problem = refused(&[], &with, None);
        let setting = name.to_ascii_lowercase().replace("caffis_", "");
        assert!(problem.contains(&setting), "{name}={nonsense}: {problem}");
    }
}

#[test]
fn proxies_are_networks() {
    let proxies = |text: &str| read(&[], &[("CAFFIS_TRUSTED_PROXIES", text)], None);
    let config = proxies("10.0.0.0/8, 2001:db8::/32,192.0.2.1").expect("runs");
    assert_eq!(config.trusted_proxies.len(), 3);
    assert!(proxies("none").expect("runs").trusted_proxies.is_empty());
    for nonsense in ["10.0.0.0/33", "balancer", "10.0.0.0/8,x", ","] {
        let problem = refused(&[], &[("CAFFIS_TRUSTED_PROXIES", nonsense)], None);
        assert!(problem.contains("trusted_proxies"), "{problem}");
    }
}

#[test]
fn a_flag_wins_over_the_environment_which_wins_over_the_file() {
    let file = Some("node = 'file'\nshards = 1\njwt_issuer = 'file'\ndemo_login = false");
    let args = ["--config", "x.toml", "--node", "flag"];
    let env = [("CAFFIS_NODE", "env"), ("CAFFIS_JWT_ISSUER", "env")];
    let config = read(&args, &env, file).expect("runs");
    assert_eq!(config.node, "flag");
    assert_eq!(config.jwt_issuer, "env");
    assert_eq!(config.shards, 1);
    assert!(!config.demo_login);
    let by_env = read(&[], &[("CAFFIS_CONFIG", "x.toml")], file).expect("runs");
    assert_eq!(by_env.node, "file");
    let empty_is_unset = read(&args[..2], &[("CAFFIS_NODE", "")], file).expect("runs");
    assert_eq!(empty_is_unset.node, "file");
}

#[test]
fn every_setting_can_be_given_in_all_three_ways() {
    for setting in SETTINGS {
        // Of the wrong type for most; what counts is that each source was looked at.
        let flag = format!("--{}=\u{1}", setting.flag());
        let by_flag = read(&[&flag], &[], None);
        let by_env = read(&[], &[(&setting.env(), "\u{1}")], None);
        let line = format!("{} = {}", setting.name, setting.example);
        // Of some one is of no use without others.
        let needed = ["s3_endpoint", "s3_access_key", "s3_secret_key"];
        let is_of_s3 = setting.name.starts_with("s3_") || setting.name == "cdn_base_url";
        let with: String = SETTINGS
            .iter()
            .filter(|it| is_of_s3 && needed.contains(&it.name) && it.name != setting.name)
            .map(|it| format!("{} = {}\n", it.name, it.example))
            .collect();
        let by_file = read(&["--config", "x"], &[], Some(&format!("{with}{line}")));
        // Names that are free text take anything; their sources are tested above.
        let free = [
            "data_dir",
            "jwt_secret",
            "jwt_issuer",
            "jwt_audience",
            "log",
        ];
        if !free.contains(&setting.name) {
            for problems in [by_flag, by_env] {
                let problems = problems.expect_err(setting.name).join("\n");
                assert!(problems.contains(setting.name), "{problems}");
            }
        }
        assert!(by_file.is_ok(), "{line}: {by_file:?}");
    }
}

#[test]
fn help_lists_every_setting_by_flag_and_variable() {
    let help = command().render_long_help().to_string();
    for setting in SETTINGS {
        assert!(help.contains(&format!("--{}", setting.flag())), "{help}");
        assert!(help.contains(&setting.env()), "{help}");
    }
}

#[test]
fn the_example_file_is_fresh_and_every_line_of_it_is_taken() {
    let committed = std::fs::read_to_string("config.example.toml").expect("there");
    assert!(
        committed == example(),
        "out of date; run: cargo run -- config > config.example.toml"
    );
    let active: String = committed
        .lines()
        .filter_map(|line| line.strip_prefix('#'))
        .filter(|line| !line.starts_with(' '))
        .map(|line| format!("{line}\n"))
        .collect();
    assert_eq!(active.lines().count(), SETTINGS.len());
    read(&["--config", "x"], &[], Some(&active)).expect("the example runs");
}

#[test]
fn values_are_checked() {
    let check = |name: &str, value: &str, taken: bool| {
        let result = read(&[], &[(name, value)], None);
        assert_eq!(result.is_ok(), taken, "{name}={value}: {result:?}");
    };
    for (value, taken) in [
        ("127.0.0.1:0", true),
        ("127.8.8.8:80", true),
        ("[::1]:8080", true),
        ("localhost:8080", false),
        ("8080", false),
        ("127.0.0.1", false),
        ("127.0.0.1:65536", false),
        ("0.0.0.0:8080", false),
        ("192.0.2.1:8080", false),
        ("[::]:8080", false),
    ] {
        check("CAFFIS_LISTEN", value, taken);
    }
    for (value, taken) in [
        ("1", true),
        ("64", true),
        ("0", false),
        ("65", false),
        ("-1", false),
    ] {
        check("CAFFIS_SHARDS", value, taken);
    }
    check("CAFFIS_SHARDS", "two", false);
    check("CAFFIS_NODE", "n-1.x_y", true);
    check("CAFFIS_NODE", "n 1", false);
    check("CAFFIS_NODE", &"n".repeat(65), false);
    check("CAFFIS_MODE", "Production", false);
    check("CAFFIS_DEMO_LOGIN", "maybe", false);
    check("CAFFIS_DEMO_LOGIN", "0", true);
    check("CAFFIS_LOG", "debug", true);
    check("CAFFIS_LOG", "caffis_chat=loud", false);
    check("CAFFIS_OUTBOX_NODE_BYTES", "1", false);
    check("CAFFIS_OUTBOX_NODE_BYTES", "268_435_456", true);
    check("CAFFIS_DRAIN_MS", "0", true);
    check("CAFFIS_JWT_SECRET", " , ", false);
    check("CAFFIS_JWT_SECRET", "anything, in development", true);
    for (value, taken) in [
        ("https://app.example.org/jwks.json", true),
        ("http://127.0.0.1:3000/jwks", true),
        ("http://main-app:3000/jwks?a=b", true),
        ("app.example.org/jwks", false),
        ("ftp://app.example.org/jwks", false),
        ("https://", false),
        ("https:///jwks", false),
        ("https://user:secret@app.example.org/jwks", false),
        ("https://app.example.org/ jwks", false),
        ("https://app.example.org/jwks#a", false),
    ] {
        check("CAFFIS_JWKS_URL", value, taken);
        check("CAFFIS_INTROSPECTION_URL", value, taken);
    }
    let whsec = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";
    for (value, taken) in [
        (whsec.to_owned(), true),
        (format!("{whsec}, {whsec}"), true),
        (whsec["whsec_".len()..].to_owned(), false),
        ("whsec_".to_owned(), false),
        ("whsec_c2hvcnQ=".to_owned(), false),
        (format!("{whsec}!"), false),
        (format!("{whsec},x"), false),
    ] {
        check("CAFFIS_WEBHOOK_SECRETS_MAP", &value, taken);
        check("CAFFIS_WEBHOOK_SECRETS_MAIN_APP", &value, taken);
        check("CAFFIS_WEBHOOK_OUT_SECRETS", &value, taken);
    }
    check("CAFFIS_WEBHOOK_ALLOW_CIDRS", "10.0.0.0/8, fd00::/8", true);
    check("CAFFIS_WEBHOOK_ALLOW_CIDRS", "none", true);
    check("CAFFIS_WEBHOOK_ALLOW_CIDRS", "10.0.0.0/33", false);
    check(
        "CAFFIS_WEBHOOK_OUT_URL",
        "https://app.example.org/hooks?of=chat",
        true,
    );
    check(
        "CAFFIS_WEBHOOK_OUT_URL",
        "ftp://app.example.org/hooks",
        false,
    );
    check("CAFFIS_WEBHOOK_OUT_ATTEMPTS", "0", false);
    check("CAFFIS_MAIN_APP_TOKEN", "a token", false);
    for (token, taken) in [
        ("32-characters-are-all-we-ask-for", true),
        ("31-characters-are-1-too-few-her", false),
        (
            "0123456789abcdef0123456789abcdef, fedcba9876543210fedcba9876543210",
            true,
        ),
        ("0123456789abcdef0123456789abcdef,short", false),
        ("with a blank, which no header carries well", false),
        ("ümlaute-are-no-characters-of-a-header", false),
        (" , ", false),
    ] {
        check("CAFFIS_ADMIN_TOKEN", token, taken);
    }
    check("CAFFIS_ADMIN_FAILURES_PER_MIN", "0", false);
    check("CAFFIS_DATABASE_URL", "mysql://x", false);
    check("CAFFIS_DATABASE_URL", "sqlite:", true);
    check("CAFFIS_DATABASE_URL", "sqlite:x.db", false);
    check("CAFFIS_DATABASE_URL", "sqlite::memory:", false);
    check("CAFFIS_DATABASE_URL", "sqlite:x?mode=memory", false);
    for (value, taken) in [
        ("https://a.example, http://b.example:8080", true),
        ("http://[::1]:80", true),
        ("http://[::1]", true),
        ("*", false),
        ("https://a.example,*", false),
        ("a.example", false),
        ("https://a.example/path", false),
        ("https://*.example", false),
        ("https://", false),
        ("https://a.example:port", false),
        ("null", false),
    ] {
        check("CAFFIS_ALLOWED_ORIGINS", value, taken);
    }
}

#[test]
fn the_database_is_a_folder_or_postgres_whose_url_is_never_shown() {
    let database = |url: &str| {
        let env = [("CAFFIS_DATA_DIR", "/d"), ("CAFFIS_DATABASE_URL", url)];
        read(&[], &env, None).expect(url).database
    };
    let folder = |url: &str| match database(url) {
        Database::Sqlite(path) => path.to_str().expect("UTF-8").to_owned(),
        Database::Postgres(_) => panic!("{url} is a folder"),
    };
    assert_eq!(folder("sqlite:"), "/d/");
    assert_eq!(folder("sqlite:x"), "/d/x");
    assert_eq!(folder("sqlite:/var/x"), "/var/x");
    assert_eq!(folder("sqlite:///var/x"), "/var/x");
    for url in [
        "postgres://u:hidden@h/db",
        "postgresql://u:hidden@h:5433/db?sslmode=require",
        "postgres://u:hidden@/db?host=/run/postgresql",
    ] {
        let Database::Postgres(kept) = database(url) else {
            panic!("{url} is PostgreSQL");
        };
        assert_eq!(kept.expose(), url.as_bytes());
        assert!(!format!("{:?}", database(url)).contains("hidden"));
    }
    for url in [
        "postgres:",
        "postgres://",
        "postgres://u:hidden@h",
        "postgres://u:hidden@h/",
        "postgres://u:hidden@/db",
        "postgres://u:hid den@h/db",
    ] {
        let problems = refused(&[], &[("CAFFIS_DATABASE_URL", url)], None);
        assert!(problems.contains("postgres://"), "{problems}");
        assert!(!problems.contains("hid"), "{problems}");
    }
}

#[test]
fn migrate_reads_the_same_settings() {
    let sources = Sources {
        args: vec!["migrate".to_owned()],
        env: [(
            "CAFFIS_DATABASE_URL".to_owned(),
            "postgres://h/db".to_owned(),
        )]
        .into(),
    };
    let machine = Machine {
        cores: 1,
        host: "h".to_owned(),
    };
    let start = Config::read(&sources, &machine, |_| Err(io::ErrorKind::NotFound.into()));
    let Ok(Start::Do(config, Task::Migrate)) = start else {
        panic!("not to migrate");
    };
    assert!(matches!(config.database, Database::Postgres(_)));
}

#[test]
fn development_leaves_loopback_only_when_told() {
    let listen = ("CAFFIS_LISTEN", "0.0.0.0:8080");
    let problems = refused(&[], &[listen], None);
    assert!(problems.contains("CAFFIS_ALLOW_INSECURE=1"), "{problems}");
    let config = read(&[], &[listen, ("CAFFIS_ALLOW_INSECURE", "1")], None).expect("told");
    assert_eq!(config.listen.to_string(), "0.0.0.0:8080");
    let config = read(&["--allow-insecure"], &[listen], None).expect("told");
    assert_eq!(config.listen.to_string(), "0.0.0.0:8080");
}

#[test]
fn production_runs_with_a_strong_secret_and_listed_origins_on_any_address() {
    let env = production(&[("CAFFIS_LISTEN", "0.0.0.0:80")]);
    let config = read(&[], &env, None).expect("sound");
    assert_eq!(config.mode, Mode::Production);
    assert!(!config.demo_login);
    assert_eq!(config.jwt_secrets[0].expose(), STRONG.as_bytes());
    assert_eq!(
        config.origins,
        Origins::Listed(vec!["https://app.example.org".to_owned()])
    );
}

#[test]
fn the_main_app_is_an_origin() {
    let given = |text| read(&[], &[("CAFFIS_MAIN_APP_URL", text)], None);
    assert_eq!(read(&[], &[], None).expect("none").main_app_url, None);
    for (text, origin) in [
        ("https://App.example.org/", "https://app.example.org"),
        ("http://127.0.0.1:8081", "http://127.0.0.1:8081"),
    ] {
        assert_eq!(
            given(text).expect("one").main_app_url.as_deref(),
            Some(origin)
        );
    }
    for text in [
        "app.example.org",
        "https://app.example.org/app",
        "https://x y",
        "https://äpp",
    ] {
        let problems = refused(&[], &[("CAFFIS_MAIN_APP_URL", text)], None);
        assert!(problems.contains("without a path"), "{text}: {problems}");
    }
}

#[test]
fn production_needs_no_shared_secret_where_tokens_are_checked_otherwise() {
    for other in [
        ("CAFFIS_JWKS_URL", "https://app.example.org/jwks"),
        ("CAFFIS_JWKS_URL", "http://[::1]:3000/jwks"),
        ("CAFFIS_JWKS_URL", "http://localhost/jwks"),
        (
            "CAFFIS_INTROSPECTION_URL",
            "https://app.example.org/introspect",
        ),
    ] {
        let env = production(&[("CAFFIS_JWT_SECRET", ""), other]);
        let config = read(&[], &env, None).expect("sound");
        assert!(config.jwt_secrets.is_empty());
    }
}

#[test]
fn production_refuses_what_is_not_safe() {
    let check = |changes: &[(&'static str, &'static str)], reason: &str| {
        let problems = refused(&[], &production(changes), None);
        assert!(problems.contains(reason), "{changes:?}: {problems}");
        assert_eq!(problems.lines().count(), 1, "{problems}");
    };
    check(
        &[("CAFFIS_JWKS_URL", "http://app.example.org/jwks")],
        "CAFFIS_JWKS_URL to be https://",
    );
    check(
        &[("CAFFIS_INTROSPECTION_URL", "http://127.0.0.1.example.org/x")],
        "CAFFIS_INTROSPECTION_URL to be https://",
    );
    check(
        &[(
            "CAFFIS_WEBHOOK_SECRETS_MAP",
            "whsec_b25seSBhbiBleGFtcGxlOiBtYWtlIHlvdXIgb3duISE=",
        )],
        "the webhook secret of the example",
    );
    let whsec = (
        "CAFFIS_WEBHOOK_OUT_SECRETS",
        "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw",
    );
    check(
        &[
            ("CAFFIS_WEBHOOK_OUT_URL", "http://app.example.org/hooks"),
            whsec,
        ],
        "CAFFIS_WEBHOOK_OUT_URL to be https://",
    );
    check(
        &[("CAFFIS_WEBHOOK_OUT_URL", "https://app.example.org/hooks")],
        "CAFFIS_WEBHOOK_OUT_SECRETS for CAFFIS_WEBHOOK_OUT_URL",
    );
    check(&[("CAFFIS_JWT_SECRET", "")], "needs CAFFIS_JWT_SECRET");
    check(
        &[("CAFFIS_MAIN_APP_URL", "http://app.example.org")],
        "CAFFIS_MAIN_APP_URL to be https://",
    );
    check(
        &[("CAFFIS_JWT_SECRET", "only-31-bytes-0123456789abcdefg")],
        "shorter than 32",
    );
    check(
        &[("CAFFIS_JWT_SECRET", "at least 32 bytes from a generator")],
        "secret 1 of CAFFIS_JWT_SECRET is that of an example",
    );
    check(
        &[("CAFFIS_JWT_SECRET", "changeme-changeme-changeme-changeme")],
        "is that of an example",
    );
    check(
        &[(
            "CAFFIS_JWT_SECRET",
            "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa",
        )],
        "repeats itself",
    );
    check(
        &[(
            "CAFFIS_JWT_SECRET",
            "c6a1f1d2b7e84c0f9d3a5b8e7f60412399ab,short",
        )],
        "secret 2 of CAFFIS_JWT_SECRET is shorter",
    );
    check(
        &[("CAFFIS_ALLOWED_ORIGINS", "")],
        "needs CAFFIS_ALLOWED_ORIGINS",
    );
    check(&[("CAFFIS_DEMO_LOGIN", "1")], "refuses CAFFIS_DEMO_LOGIN");
    check(
        &[(
            "CAFFIS_ADMIN_TOKEN",
            "at-least-32-characters-from-a-generator",
        )],
        "secret 1 of CAFFIS_ADMIN_TOKEN is that of an example",
    );
    check(
        &[("CAFFIS_ADMIN_TOKEN", "abababababababababababababababababab")],
        "secret 1 of CAFFIS_ADMIN_TOKEN repeats itself",
    );
}

#[test]
fn all_problems_are_told_at_once() {
    let env = [
        ("CAFFIS_MODE", "production"),
        ("CAFFIS_SHARDS", "0"),
        ("CAFFIS_LISTEN", "nowhere"),
    ];
    let problems = refused(&["--config", "x"], &env, Some("shard = 1\nnode = 7"));
    for reason in [
        "CAFFIS_SHARDS",
        "CAFFIS_LISTEN",
        "needs CAFFIS_JWT_SECRET",
        "needs CAFFIS_ALLOWED_ORIGINS",
        "\"shard\" that does not exist",
        "node in the configuration file must be a string",
    ] {
        assert!(problems.contains(reason), "{reason}: {problems}");
    }
    let unreadable = refused(&["--config", "nowhere.toml"], &[], None);
    assert!(
        unreadable.contains("nowhere.toml cannot be read"),
        "{unreadable}"
    );
}

#[test]
fn nothing_secret_is_shown() {
    let secret = "s3cr3t-0123456789-abcdefghij-KLMNOP";
    let config = read(&[], &[("CAFFIS_JWT_SECRET", secret)], None).expect("runs");
    let shown = format!("{config:?} {:#?} {}", config, config.jwt_secrets[0]);
    assert!(
        shown.contains("[redacted]") && !shown.contains("s3cr3t"),
        "{shown}"
    );

    // A secret that was put into another setting, or into a broken file, is not shown either.
    let problems = refused(&[], &[("CAFFIS_LISTEN", secret)], None);
    assert!(!problems.contains("s3cr3t"), "{problems}");
    let file = format!("jwt_secret = \"{secret}");
    let problems = refused(&["--config", "x"], &[], Some(&file));
    assert!(!problems.contains("s3cr3t"), "{problems}");
    let problems = refused(&[], &production(&[("CAFFIS_JWT_SECRET", "s3cr3t")]), None);
    assert!(!problems.contains("s3cr3t"), "{problems}");
    let config = read(&[], &[("CAFFIS_ADMIN_TOKEN", secret)], None).expect("runs");
    assert!(!format!("{config:?}").contains("s3cr3t"));
}

#[test]
fn variables_that_mean_nothing_are_told() {
    let env = [("CAFFIS_NOTHING", "x"), ("OTHER", "1")];
    let config = read(&[], &env, None).expect("runs");
    assert_eq!(config.warnings.len(), 1, "{:?}", config.warnings);
    assert!(config.warnings[0].contains("CAFFIS_NOTHING"));
}
