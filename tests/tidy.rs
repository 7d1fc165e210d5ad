//! Checks the sources: who imports whom, what stands where, and what must not stand anywhere.
//! Each rule is also shown a source that breaks it, because a rule that finds nothing proves
//! nothing.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

/// What each module may import of this crate: a whole module, or one path below it. `name::*`
/// means the items of its root and none of its inner modules.
const IMPORTS: &[(&str, &[&str])] = &[
    ("limits", &[]),
    ("protocol", &["limits"]),
    ("chat", &["limits", "protocol"]),
    ("search", &["limits", "protocol", "chat::port"]),
    ("sys", &[]),
    ("edge", &["limits", "protocol", "chat", "sys"]),
    ("shard", &["limits", "protocol", "chat", "edge", "sys"]),
    ("store", SEAM),
    ("relay", SEAM),
    ("blob", SEAM),
    ("outbound", &["limits"]),
    ("identity", IDENTITY),
    (
        "api",
        &[
            "limits",
            "protocol",
            "chat::port",
            "chat::push",
            "chat::stats",
            "identity::*",
            "blob",
        ],
    ),
    (
        "config",
        &[
            "limits",
            "chat::sabotage",
            "protocol::asyncapi",
            "protocol::openapi",
            "protocol::network",
        ],
    ),
    ("telemetry", &[]),
    ("tasks", &["chat::port", "config", "doctor", "node"]),
    // Builds a ring like a shard's, to see whether it can.
    ("doctor", &["sys", "edge"]),
    (
        "node",
        &[
            "limits",
            "protocol",
            "chat",
            "sys",
            "edge",
            "shard",
            "store",
            "relay",
            "blob",
            "outbound",
            "identity",
            "api",
            "config",
            "telemetry",
            "doctor",
        ],
    ),
];
/// A backend sees the vocabulary of its seam, never another backend.
const SEAM: &[&str] = &[
    "limits",
    "protocol",
    "chat::port",
    "chat::access",
    "chat::sabotage",
    "chat::stats",
    "search",
];

/// The one backend that has to ask somebody.
const IDENTITY: &[&str] = &["limits", "protocol", "chat::port", "outbound"];

/// Crates that do I/O, and the only modules that may name them: what a backend is made of must
/// not leak out of it.
const CRATES: &[(&str, &[&str])] = &[
    ("rusqlite", &["store"]),
    ("tokio_postgres", &["store"]),
    ("tokio_postgres_rustls", &["store"]),
    ("io_uring", &["sys"]),
    ("libc", &["sys", "edge", "shard", "doctor"]),
    ("rustix", &["doctor"]),
    ("glommio", &["shard"]),
    ("axum", &["api"]),
    ("multer", &["api"]),
    ("s3", &["blob"]),
    ("hyper", &["api", "outbound", "identity"]),
    ("hyper_util", &["api", "outbound"]),
    ("http_body_util", &["outbound"]),
    ("tokio_rustls", &["outbound"]),
    ("rustls_native_certs", &["outbound"]),
    (
        "tokio",
        &[
            "api", "node", "relay", "store", "outbound", "identity", "blob",
        ],
    ),
    ("zip", &["api"]),
    ("redis", &["relay"]),
    ("futures_util", &["relay", "api"]),
    ("jsonwebtoken", &["identity"]),
    ("clap", &["config"]),
    ("toml", &["config"]),
    ("tracing_subscriber", &["telemetry", "config"]),
];

/// Lines of a file; a longer one has more than one idea. A test's data may take more.
const LINES_MAX: usize = 800;
const TEST_LINES_MAX: usize = 1_100;
/// Files that may be longer, and why.
const LONG: &[(&str, usize, &str)] = &[("src/sys.rs", 900, "all that is unsafe is in one file")];

/// Never in a source, each split so that this file does not hold it.
const FORBIDDEN_CODE: &[&str] = &[
    concat!("to", "do!("),
    concat!("unimple", "mented!("),
    concat!("db", "g!("),
    concat!("#[ig", "nore"),
];
/// Never in a test: one waits for what one expects, with a deadline.
const FORBIDDEN_IN_TESTS: &[&str] = &[concat!("thread::sl", "eep"), concat!("time::sl", "eep")];
/// Never in any file: places of one machine.
const FORBIDDEN_TEXT: &[&str] = &[
    concat!("/wo", "rk/"),
    concat!("/tm", "p/wt"),
    concat!("/ro", "ot/"),
    concat!("/ho", "me/"),
    concat!(".libr", "ary/"),
    concat!("index.cra", "tes.io"),
    concat!("registry.npm", "js"),
];

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// All files below a folder whose name ends so, as paths relative to the repository.
fn files(folder: &str, end: &str) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut folders = vec![root().join(folder)];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder).expect("a folder") {
            let entry = entry.expect("an entry");
            let name = entry.file_name().to_string_lossy().into_owned();
            let kind = entry.file_type().expect("a kind");
            let skipped = ["target", "node_modules", "data"].contains(&name.as_str())
                || name.starts_with('.') && name != ".ci";
            // In a second work tree it is a file, and says where the first one is.
            let is_git = name == ".git";
            if kind.is_dir() && !skipped {
                folders.push(entry.path());
            } else if kind.is_file() && name.ends_with(end) && !is_git {
                let path = entry.path();
                found.push(path.strip_prefix(root()).expect("below it").to_owned());
            }
        }
    }
    found.sort();
    found
}

fn sources() -> Vec<(String, String)> {
    ["src", "tests", "loadtest/src", "examples"]
        .into_iter()
        .flat_map(|folder| files(folder, ".rs"))
        .map(|path| {
            let text = fs::read_to_string(root().join(&path)).expect("UTF-8");
            (path.to_string_lossy().into_owned(), text)
        })
        .collect()
}

/// The code without comments, and without what stands in quotes.
fn code(text: &str) -> String {
    text.lines()
        .map(|line| {
            let mut kept = String::new();
            let mut quoted = false;
            let mut rest = line.chars().peekable();
            while let Some(c) = rest.next() {
                match c {
                    '\\' if quoted => {
                        rest.next();
                    }
                    '"' => quoted = !quoted,
                    '/' if !quoted && rest.peek() == Some(&'/') => break,
                    _ if !quoted => kept.push(c),
                    _ => (),
                }
            }
            kept + "\n"
        })
        .collect()
}

/// Every path after `crate::`, groups taken apart, up to two names long.
fn imports(code: &str) -> Vec<String> {
    let mut paths = Vec::new();
    for (at, word) in code.match_indices("crate::") {
        let before = code[..at].chars().next_back();
        if before.is_none_or(|c| !c.is_alphanumeric() && c != '_' && c != '$') {
            expand("", &code[at + word.len()..], &mut paths);
        }
    }
    paths
}

fn expand(prefix: &str, text: &str, paths: &mut Vec<String>) {
    let text = text.trim_start();
    if let Some(group) = text.strip_prefix('{') {
        for item in items(group) {
            expand(prefix, item, paths);
        }
        return;
    }
    let end = text
        .find(|c: char| !c.is_alphanumeric() && c != '_')
        .unwrap_or(text.len());
    let (name, rest) = text.split_at(end);
    if name.is_empty() || name == "self" {
        paths.push(prefix.trim_end_matches("::").to_owned());
    } else if let Some(rest) = rest.strip_prefix("::")
        && prefix.is_empty()
    {
        expand(&format!("{name}::"), rest, paths);
    } else {
        paths.push(format!("{prefix}{name}"));
    }
}

/// The items of a group, up to the brace that closes it.
fn items(group: &str) -> Vec<&str> {
    let (mut depth, mut from, mut items) = (0, 0, Vec::new());
    for (at, c) in group.char_indices() {
        match c {
            '{' => depth += 1,
            '}' if depth == 0 => {
                items.push(&group[from..at]);
                break;
            }
            '}' => depth -= 1,
            ',' if depth == 0 => {
                items.push(&group[from..at]);
                from = at + 1;
            }
            _ => (),
        }
    }
    items.retain(|item| !item.trim().is_empty());
    items
}

/// The module of the crate that a file belongs to.
fn module_of(path: &str) -> Option<&str> {
    let rest = path.strip_prefix("src/")?;
    let name = rest.split('/').next()?;
    let name = name.strip_suffix(".rs").unwrap_or(name);
    (!["lib", "main"].contains(&name)).then_some(name)
}

fn may_import(module: &str, import: &str) -> bool {
    let (_, allowed) = IMPORTS
        .iter()
        .find(|(known, _)| *known == module)
        .unwrap_or_else(|| panic!("src/{module} stands in no row of IMPORTS"));
    let top = import.split("::").next().unwrap_or(import);
    top == module
        || allowed
            .iter()
            .any(|allowed| match allowed.strip_suffix("::*") {
                // Items begin with a capital, modules do not.
                Some(seam) => import
                    .strip_prefix(seam)
                    .and_then(|rest| rest.strip_prefix("::"))
                    .is_some_and(|item| item.starts_with(char::is_uppercase)),
                None => *allowed == top || *allowed == import,
            })
}

fn wrong_imports(path: &str, text: &str) -> Vec<String> {
    let Some(module) = module_of(path) else {
        return Vec::new();
    };
    let code = code(text);
    let wrong = imports(&code)
        .into_iter()
        .filter(|import| !may_import(module, import))
        .map(|import| format!("{path} imports {import}"));
    let leaks = CRATES
        .iter()
        .filter(|(name, places)| uses_crate(&code, name) && !places.contains(&module))
        .map(|(name, _)| format!("{path} uses the crate {name}"));
    wrong.chain(leaks).collect()
}

fn uses_crate(code: &str, name: &str) -> bool {
    let path = format!("{name}::");
    code.match_indices(&path).any(|(at, _)| {
        let before = code[..at].chars().next_back();
        before.is_none_or(|c| !c.is_alphanumeric() && c != '_' && c != ':')
    })
}

fn wrong_places(path: &str, text: &str) -> Vec<String> {
    let code = code(text);
    let mut wrong = Vec::new();
    let mut say = |what: String| wrong.push(format!("{path}: {what}"));
    if !text.starts_with("//!") {
        say("has no head that says what it decides".to_owned());
    }
    let words = code.split(|c: char| !c.is_alphanumeric() && c != '_');
    if path != "src/sys.rs" && words.into_iter().any(|word| word == concat!("un", "safe")) {
        say("has unsafe code outside src/sys.rs".to_owned());
    }
    for word in FORBIDDEN_CODE {
        if code.contains(word) {
            say(format!("has {word}"));
        }
    }
    let in_tests = ["tests/", "examples/support/"]
        .iter()
        .any(|tests| path.starts_with(tests))
        || path.starts_with("examples/") && path.contains("/tests/")
        || path.ends_with("/tests.rs");
    for word in FORBIDDEN_IN_TESTS.iter().filter(|_| in_tests) {
        if code.contains(word) {
            say(format!("has {word} in a test"));
        }
    }
    let max = LONG.iter().find(|(long, _, _)| *long == path).map_or(
        if in_tests { TEST_LINES_MAX } else { LINES_MAX },
        |(_, max, _)| *max,
    );
    let lines = text.lines().count();
    if lines > max {
        say(format!("has {lines} lines, {max} are enough"));
    }
    wrong
}

fn report(wrong: &[String]) {
    assert!(wrong.is_empty(), "\n{}\n", wrong.join("\n"));
}

#[test]
fn modules_import_only_what_stands_below_them() {
    let sources = sources();
    let wrong: Vec<_> = sources
        .iter()
        .flat_map(|(path, text)| wrong_imports(path, text))
        .collect();
    report(&wrong);
    let seen: usize = sources
        .iter()
        .map(|(_, text)| imports(&code(text)).len())
        .sum();
    assert!(seen > 100, "only {seen} imports were seen");
    for (module, _) in IMPORTS {
        let there = sources
            .iter()
            .any(|(path, _)| module_of(path) == Some(module));
        assert!(there, "{module} stands in IMPORTS and nowhere else");
    }
}

#[test]
fn sources_have_a_head_and_nothing_that_does_not_belong() {
    let wrong: Vec<_> = sources()
        .iter()
        .flat_map(|(path, text)| wrong_places(path, text))
        .collect();
    report(&wrong);
}

#[test]
fn no_source_is_dead() {
    let sources: BTreeMap<_, _> = sources().into_iter().collect();
    let mut wrong = Vec::new();
    for path in sources.keys().filter(|path| path.starts_with("src/")) {
        let file = Path::new(path);
        let folder = file.parent().expect("a folder").to_string_lossy();
        let (name, parents) = match file.file_stem().and_then(|stem| stem.to_str()) {
            Some("lib" | "main") => continue,
            Some("mod") => {
                let (above, name) = folder.rsplit_once('/').expect("below src");
                (
                    name.to_owned(),
                    [format!("{above}/mod.rs"), format!("{above}.rs")],
                )
            }
            Some(name) => (
                name.to_owned(),
                [format!("{folder}/mod.rs"), format!("{folder}.rs")],
            ),
            None => continue,
        };
        let declared = parents
            .iter()
            .chain(&[format!("{}/lib.rs", folder.split('/').next().expect("src"))])
            .filter_map(|parent| sources.get(parent))
            .any(|text| code(text).contains(&format!("mod {name};")));
        if !declared {
            wrong.push(format!("{path} is no module of the crate"));
        }
    }
    report(&wrong);
}

#[test]
fn no_file_names_a_place_of_one_machine() {
    let mut wrong = Vec::new();
    let mut seen = 0;
    for path in files(".", "") {
        // What is not text names nothing that a reader sees.
        let Ok(text) = fs::read_to_string(root().join(&path)) else {
            continue;
        };
        seen += 1;
        for word in FORBIDDEN_TEXT {
            if text.contains(word) {
                wrong.push(format!("{} names {word}", path.display()));
            }
        }
    }
    report(&wrong);
    assert!(seen > 80, "only {seen} files were seen");
}

/// The blocks of this language.
fn blocks<'a>(text: &'a str, language: &str) -> Vec<&'a str> {
    let fence = format!("```{language}\n");
    let rest = text.split(fence.as_str()).skip(1);
    rest.filter_map(|it| it.split("```").next()).collect()
}

#[test]
fn the_form_that_the_documentation_shows_is_the_one_that_is_tested() {
    let docs = fs::read_to_string(root().join("docs/integrating.md")).expect("there");
    let source = fs::read_to_string(root().join("tests/support/form.rs")).expect("there");
    let code = source.find("use std").map(|at| &source[at..]);
    let code = code.expect("it has imports");
    assert!(code.contains("pub fn form(") && code.len() > 500);
    assert!(blocks(&docs, "rust").contains(&code), "{code}");
    assert!(!blocks(&docs, "rust").contains(&&code[1..]));
}

#[test]
fn the_rules_find_what_breaks_them() {
    let import = |path: &str, text: &str| wrong_imports(path, text).len();
    assert_eq!(import("src/limits.rs", "use crate::protocol::Seq;"), 1);
    assert_eq!(
        import("src/chat/x.rs", "use crate::{limits, edge::{a, B}};"),
        2
    );
    assert_eq!(import("src/chat/x.rs", "let x = crate::shard::start();"), 1);
    assert_eq!(
        import(
            "src/chat/x.rs",
            "/// See [`crate::shard`].\nuse crate::limits;"
        ),
        0
    );
    assert_eq!(import("src/store/x.rs", "use crate::chat::port::Op;"), 0);
    assert_eq!(import("src/store/x.rs", "use crate::chat::ShardCore;"), 1);
    assert_eq!(
        import("src/store/x.rs", "use crate::chat::{port::Op, home};"),
        1
    );
    assert_eq!(import("src/store/x.rs", "use crate::identity::demo;"), 1);
    assert_eq!(import("src/api/x.rs", "use crate::identity::DemoLogin;"), 0);
    assert_eq!(
        import("src/api/x.rs", "use crate::identity::{demo, DemoLogin};"),
        1
    );
    assert_eq!(import("src/api/x.rs", "use crate::identity;"), 1);
    assert_eq!(
        import(
            "src/node.rs",
            "use crate::{\n    sys,\n    api::{self, Parts},\n};"
        ),
        0
    );
    assert_eq!(import("src/api/x.rs", "use rusqlite::Connection;"), 1);
    assert_eq!(import("src/api/x.rs", "fn f() { tokio::spawn(x) }"), 0);
    assert_eq!(import("src/edge/x.rs", "fn f() { tokio::spawn(x) }"), 1);

    let place = |path: &str, text: &str| wrong_places(path, text).len();
    assert_eq!(place("src/x.rs", "//! Head.\nfn f() {}"), 0);
    assert_eq!(place("src/x.rs", "fn f() {}"), 1);
    let body = concat!("//! Head.\nun", "safe { f() }");
    assert_eq!(place("src/x.rs", body), 1);
    assert_eq!(place("src/sys.rs", body), 0);
    assert_eq!(
        place("src/x.rs", concat!("//! Head.\n// un", "safe is not here")),
        0
    );
    assert_eq!(
        place("src/x.rs", &format!("//! Head.\n{})", FORBIDDEN_CODE[0])),
        1
    );
    let sleepy = format!("//! Head.\n{}(x)", FORBIDDEN_IN_TESTS[0]);
    assert_eq!(
        (place("tests/x.rs", &sleepy), place("src/x.rs", &sleepy)),
        (1, 0)
    );
    assert_eq!(
        place(
            "src/x.rs",
            &format!("//! Head.\n{}", "x\n".repeat(LINES_MAX))
        ),
        1
    );
    assert_eq!(
        place(
            "src/sys.rs",
            &format!("//! Head.\n{}", "x\n".repeat(LINES_MAX))
        ),
        0
    );
}
