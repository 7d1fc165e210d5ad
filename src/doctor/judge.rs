//! Compares what the host said with what the node needs.
//!
//! Invariant: pure; every case of every reading leads to one finding.

use super::{Finding, Needs, Verdict};
use std::ops::RangeInclusive;

/// Oldest kernel with everything that the ring uses (multishot receive).
const KERNEL_MIN: (u32, u32) = (6, 0);
/// Below this the store's next checkpoint may not fit, bytes.
const FREE_BYTES_MIN: u64 = 64 << 20;
/// Below this an operator should know, bytes.
const FREE_BYTES_WANTED: u64 = 1 << 30;
/// A clock before this has lost its time: 2025-01-01, Unix seconds.
const CLOCK_MIN_S: u64 = 1_735_689_600;
/// The newest file of the data folder may be this much newer than the clock, seconds.
const CLOCK_BEHIND_S_MAX: u64 = 5;
/// User-space and kernel memory of an idle connection, caches included: bytes, measured, rounded
/// up (docs/benchmarks.md).
const CONNECTION_BYTES: u64 = 10 << 10;
/// What the program takes before anybody connects, bytes.
const BASE_BYTES: u64 = 64 << 20;
/// What a node is sized for when nobody says otherwise.
const CONNECTIONS_USUAL: usize = 10_000;

/// What the host said; `None` is what it did not say.
#[derive(Clone, Debug)]
pub struct Host {
    /// Version of the kernel.
    pub kernel: Option<(u32, u32)>,
    /// Files that may be open, after raising the limit as far as it goes.
    pub descriptors: Option<u64>,
    /// Memory that may be locked, bytes; `u64::MAX`: without limit.
    pub locked_bytes: Option<u64>,
    /// Whether that limit does not bind this process (CAP_IPC_LOCK).
    pub locks_freely: bool,
    /// Rings like a shard's that could be built, all at once.
    pub rings: usize,
    /// Why not one more.
    pub ring_error: Option<RingError>,
    /// `kernel.io_uring_disabled`.
    pub io_uring_disabled: Option<String>,
    /// `net.core.somaxconn`.
    pub somaxconn: Option<u64>,
    /// The address.
    pub port: Port,
    /// `net.ipv4.ip_local_port_range`.
    pub ephemeral: Option<RangeInclusive<u16>>,
    /// `net.ipv4.ip_local_reserved_ports`.
    pub reserved: Vec<RangeInclusive<u16>>,
    /// The data folder.
    pub data: Data,
    /// `/sys/kernel/mm/transparent_hugepage/enabled`: the mode in force.
    pub huge_pages: Option<String>,
    /// Whether this process may do without huge pages.
    pub small_pages: bool,
    /// The clock, Unix seconds.
    pub clock_s: u64,
    /// What the kernel reads the time from.
    pub clock_source: Option<String>,
    /// Memory of the machine or of the container, bytes.
    pub memory_bytes: Option<u64>,
    /// Cores that this process may run on.
    pub cores: usize,
}

/// Why a ring could not be built.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum RingError {
    /// Not enough memory may be locked.
    LockedMemory,
    /// io_uring is forbidden, or the kernel does not know it.
    Refused(String),
    /// Something else.
    Other(String),
}

/// Whether the address can be listened on.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Port {
    /// It can.
    Free,
    /// Somebody listens there.
    Taken,
    /// Not by this user.
    Denied,
    /// For another reason not.
    Other(String),
}

/// The data folder, or the folder that it would be made in.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Data {
    /// Why nothing can be written and synced there; `None` if it can.
    pub error: Option<String>,
    /// Its file system, as `statfs` numbers them.
    pub kind: Option<u64>,
    /// Free for this user, bytes.
    pub free_bytes: Option<u64>,
    /// When its newest file was written, Unix seconds.
    pub newest_s: Option<u64>,
}

/// All findings, the most important first.
pub fn judge(needs: &Needs, host: &Host) -> Vec<Finding> {
    vec![
        kernel(host),
        io_uring(needs, host),
        locked_memory(needs, host),
        open_files(needs, host),
        client_addresses(needs),
        address(needs, host),
        port_range(needs, host),
        backlog(needs, host),
        data_folder(needs, host),
        free_space(host),
        memory(needs, host),
        cores(needs, host),
        huge_pages(host),
        clock(host),
        clock_source(host),
    ]
}

fn ok(check: &'static str, found: impl Into<String>) -> Finding {
    Finding {
        check,
        verdict: Verdict::Ok,
        found: found.into(),
        mend: None,
    }
}

fn warn(check: &'static str, found: impl Into<String>, mend: impl Into<String>) -> Finding {
    Finding {
        verdict: Verdict::Warn,
        mend: Some(mend.into()),
        ..ok(check, found)
    }
}

fn fail(check: &'static str, found: impl Into<String>, mend: impl Into<String>) -> Finding {
    Finding {
        verdict: Verdict::Fail,
        ..warn(check, found, mend)
    }
}

fn unknown(check: &'static str, what: &str) -> Finding {
    warn(
        check,
        format!("unknown: {what} cannot be read"),
        "see that /proc and /sys are there",
    )
}

fn kernel(host: &Host) -> Finding {
    let check = "kernel";
    match host.kernel {
        None => unknown(check, "its version"),
        Some((major, minor)) if (major, minor) < KERNEL_MIN => fail(
            check,
            format!("Linux {major}.{minor}"),
            format!("Linux {}.{} or newer is needed", KERNEL_MIN.0, KERNEL_MIN.1),
        ),
        Some((major, minor)) => ok(check, format!("Linux {major}.{minor}")),
    }
}

fn io_uring(needs: &Needs, host: &Host) -> Finding {
    let check = "io_uring";
    let shards = usize::from(needs.shards);
    match &host.ring_error {
        None => ok(check, format!("{} rings could be built", host.rings)),
        // Told by the check of locked memory.
        Some(RingError::LockedMemory) => fail(
            check,
            format!("{} of {shards} rings could be built", host.rings),
            "more memory must be lockable, see `locked memory`",
        ),
        Some(RingError::Refused(error)) => match host.io_uring_disabled.as_deref() {
            None | Some("0") => fail(
                check,
                error.clone(),
                "a seccomp filter forbids it, or the kernel is too old; in containers use \
                 tuning/seccomp.json, which allows io_uring_setup, io_uring_enter and \
                 io_uring_register",
            ),
            Some(disabled) => fail(
                check,
                format!("{error}: kernel.io_uring_disabled is {disabled}"),
                "sysctl -w kernel.io_uring_disabled=0",
            ),
        },
        Some(RingError::Other(error)) => fail(check, error.clone(), "see the message"),
    }
}

fn locked_memory(needs: &Needs, host: &Host) -> Finding {
    let check = "locked memory";
    let wanted = needs.locked_bytes_per_shard * u64::from(needs.shards);
    let short = host.ring_error == Some(RingError::LockedMemory);
    let mend = format!(
        "ulimit -l {}, LimitMEMLOCK={wanted} (systemd), --ulimit memlock={wanted} (docker); the \
         limit counts all processes of the user together",
        wanted >> 10
    );
    match host.locked_bytes {
        _ if host.locks_freely && !short => ok(check, "no limit binds this user (CAP_IPC_LOCK)"),
        None => unknown(check, "its limit"),
        Some(u64::MAX) if !short => ok(check, "without limit"),
        Some(limit) => {
            let found = format!(
                "{} KiB may be locked, {} shards lock up to {} KiB",
                limit >> 10,
                needs.shards,
                wanted >> 10
            );
            if short || limit < needs.locked_bytes_per_shard / 2 {
                fail(check, found, mend)
            } else if limit < wanted {
                warn(check, found, mend)
            } else {
                ok(check, found)
            }
        }
    }
}

fn open_files(needs: &Needs, host: &Host) -> Finding {
    let check = "open files";
    let Some(limit) = host.descriptors else {
        return unknown(check, "their limit");
    };
    let limit = usize::try_from(limit).unwrap_or(usize::MAX);
    let possible = limit.saturating_sub(needs.descriptors_reserved);
    let wanted = needs.connections_max.unwrap_or(CONNECTIONS_USUAL);
    let found = format!(
        "{limit} may be open: {possible} connections; {wanted} are {}",
        match needs.connections_max {
            Some(_) => "configured",
            None => "usual",
        }
    );
    let least = wanted.saturating_add(needs.descriptors_reserved);
    let mend = format!(
        "ulimit -n {least}, LimitNOFILE={least} (systemd), tuning/limits.conf; or a smaller \
         CAFFIS_CONNECTIONS_MAX"
    );
    if possible < needs.connections_min || needs.connections_max.is_some_and(|max| max > possible) {
        fail(check, found, mend)
    } else if possible < wanted {
        warn(check, found, mend)
    } else {
        ok(check, found)
    }
}

/// Nothing that a host can lack, but what surprises behind a balancer.
fn client_addresses(needs: &Needs) -> Finding {
    let check = "addresses of clients";
    let found = match needs.connections_per_ip {
        0 => "each may have all connections (CAFFIS_CONNECTIONS_PER_IP is 0)".to_owned(),
        max if needs.trusts_other_hosts => {
            format!("{max} connections each; those of your proxies are told by X-Forwarded-For")
        }
        max => format!(
            "{max} connections each; a balancer on another host is one of them, unless it is named \
             in CAFFIS_TRUSTED_PROXIES"
        ),
    };
    ok(check, found)
}

fn address(needs: &Needs, host: &Host) -> Finding {
    let check = "address";
    let listen = needs.listen;
    match &host.port {
        Port::Free => ok(check, format!("{listen} is free")),
        Port::Taken => fail(
            check,
            format!("{listen} is in use"),
            "stop who listens there (a node that runs already?), or choose another CAFFIS_LISTEN",
        ),
        Port::Denied => fail(
            check,
            format!("{listen} is not for this user"),
            "a port from 1024 on, or CAP_NET_BIND_SERVICE",
        ),
        Port::Other(error) => fail(
            check,
            format!("{listen}: {error}"),
            "an address of this host in CAFFIS_LISTEN",
        ),
    }
}

fn port_range(needs: &Needs, host: &Host) -> Finding {
    let check = "port range";
    let port = needs.listen.port();
    let Some(range) = &host.ephemeral else {
        return unknown(check, "net.ipv4.ip_local_port_range");
    };
    let (low, high) = (range.start(), range.end());
    if port == 0 {
        ok(check, "any port will do")
    } else if !range.contains(&port) {
        ok(
            check,
            format!("{port} is none of {low} to {high}, which clients are given"),
        )
    } else if host.reserved.iter().any(|range| range.contains(&port)) {
        ok(check, format!("{port} is reserved from {low} to {high}"))
    } else {
        warn(
            check,
            format!(
                "{port} is one of {low} to {high}: a client of this host may have it at a restart"
            ),
            format!("sysctl -w net.ipv4.ip_local_reserved_ports={port}"),
        )
    }
}

fn backlog(needs: &Needs, host: &Host) -> Finding {
    let check = "listen backlog";
    let wanted = needs.backlog;
    match host.somaxconn {
        None => unknown(check, "net.core.somaxconn"),
        Some(cap) if cap < wanted => warn(
            check,
            format!("net.core.somaxconn is {cap}: a storm of connects overflows it"),
            format!("sysctl -w net.core.somaxconn={wanted} (tuning/sysctl.conf)"),
        ),
        Some(cap) => ok(check, format!("net.core.somaxconn is {cap}")),
    }
}

/// What a file system is called, and what is wrong with it; on a network only for the embedded store.
fn file_system(kind: u64, embedded_store: bool) -> (&'static str, Option<(Verdict, &'static str)>) {
    let network = embedded_store.then_some((
        Verdict::Fail,
        "the embedded store needs a local disk: its shared memory and locks do not reach over \
         a network",
    ));
    let memory = Some((
        Verdict::Warn,
        "what was acknowledged is gone when the machine stops: put the data folder on a disk",
    ));
    let layer = Some((
        Verdict::Warn,
        "what was acknowledged is gone with the container: mount a volume there",
    ));
    match kind {
        0xef53 => ("ext4", None),
        0x5846_5342 => ("xfs", None),
        0x9123_683e => ("btrfs", None),
        0x2fc1_2fc1 => ("zfs", None),
        0x0102_1994 => ("tmpfs", memory),
        0x8584_58f6 => ("ramfs", memory),
        0x794c_7630 => ("overlay", layer),
        0x6969 => ("nfs", network),
        0xff53_4d42 | 0xfe53_4d42 => ("smb", network),
        0x0102_1997 => ("9p", network),
        _ => ("a file system of its own", None),
    }
}

fn data_folder(needs: &Needs, host: &Host) -> Finding {
    let check = "data folder";
    if let Some(error) = &host.data.error {
        return fail(
            check,
            error.clone(),
            "a folder that this user may write to in CAFFIS_DATA_DIR",
        );
    }
    let Some(kind) = host.data.kind else {
        return unknown(check, "its file system");
    };
    let (name, wrong) = file_system(kind, needs.embedded_store);
    let found = format!("can be written and synced, on {name}");
    match wrong {
        None => ok(check, found),
        Some((verdict, mend)) => Finding {
            verdict,
            ..warn(check, found, mend)
        },
    }
}

fn free_space(host: &Host) -> Finding {
    let check = "free space";
    let Some(free) = host.data.free_bytes else {
        return unknown(check, "the free space of the data folder");
    };
    let found = format!("{} MiB", free >> 20);
    let mend = "a full disk refuses every message: make room, or move the data folder";
    if free < FREE_BYTES_MIN {
        fail(check, found, mend)
    } else if free < FREE_BYTES_WANTED {
        warn(check, found, mend)
    } else {
        ok(check, found)
    }
}

fn memory(needs: &Needs, host: &Host) -> Finding {
    let check = "memory";
    let Some(bytes) = host.memory_bytes else {
        return unknown(check, "how much there is");
    };
    let connections = needs.connections_max.unwrap_or(CONNECTIONS_USUAL) as u64;
    let wanted = BASE_BYTES + needs.outbox_bytes + connections * CONNECTION_BYTES;
    let found = format!(
        "{} MiB; {connections} connections and full outboxes take up to {} MiB",
        bytes >> 20,
        wanted >> 20
    );
    if bytes < wanted {
        let mend = "more memory (also of the container), or smaller CAFFIS_CONNECTIONS_MAX and \
                    CAFFIS_OUTBOX_NODE_BYTES";
        warn(check, found, mend)
    } else {
        ok(check, found)
    }
}

fn cores(needs: &Needs, host: &Host) -> Finding {
    let check = "cores";
    let found = format!("{} shards on {} cores", needs.shards, host.cores);
    if usize::from(needs.shards) > host.cores {
        let mend = format!(
            "CAFFIS_SHARDS={}: shards that share a core slow each other",
            host.cores
        );
        warn(check, found, mend)
    } else {
        ok(check, found)
    }
}

fn huge_pages(host: &Host) -> Finding {
    let check = "huge pages";
    let mode = host.huge_pages.as_deref().unwrap_or("not in this kernel");
    if host.small_pages || mode != "always" {
        ok(check, format!("{mode}; the node asks for none"))
    } else {
        warn(
            check,
            format!("{mode}, and the node cannot ask for none"),
            "echo madvise >/sys/kernel/mm/transparent_hugepage/enabled",
        )
    }
}

fn clock(host: &Host) -> Finding {
    let check = "clock";
    let mend = "set it, and let chrony or systemd-timesyncd keep it: tokens and times depend on it";
    if host.clock_s < CLOCK_MIN_S {
        return fail(check, "is years behind", mend);
    }
    match host.data.newest_s {
        Some(newest) if newest > host.clock_s + CLOCK_BEHIND_S_MAX => warn(
            check,
            format!(
                "is {} s behind the newest file of the data folder",
                newest - host.clock_s
            ),
            mend,
        ),
        Some(_) | None => ok(check, "plausible"),
    }
}

fn clock_source(host: &Host) -> Finding {
    let check = "clock source";
    match host.clock_source.as_deref() {
        None => unknown(check, "it"),
        // Each of these is read through a device: a microsecond, and every turn reads the time.
        Some(slow @ ("hpet" | "acpi_pm" | "refined-jiffies" | "jiffies")) => warn(
            check,
            format!("{slow} is slow to read"),
            "choose tsc, kvm-clock or arch_sys_counter, see \
             /sys/devices/system/clocksource/clocksource0/available_clocksource",
        ),
        Some(source) => ok(check, source),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::doctor::{is_well, json, table};

    fn needs() -> Needs {
        Needs {
            listen: "127.0.0.1:8080".parse().expect("an address"),
            data_dir: "data".into(),
            embedded_store: true,
            shards: 4,
            connections_max: Some(15_000),
            connections_min: 16,
            descriptors_reserved: 500,
            locked_bytes_per_shard: 1 << 20,
            backlog: 4_096,
            outbox_bytes: 128 << 20,
            connections_per_ip: 2_000,
            trusts_other_hosts: false,
        }
    }

    #[test]
    fn a_balancer_that_is_not_named_is_told_of() {
        let found = |connections_per_ip, trusts_other_hosts| {
            let needs = Needs {
                connections_per_ip,
                trusts_other_hosts,
                ..needs()
            };
            client_addresses(&needs).found
        };
        assert!(found(2_000, false).contains("CAFFIS_TRUSTED_PROXIES"));
        assert!(found(2_000, true).contains("X-Forwarded-For"));
        assert!(found(0, true).contains("CAFFIS_CONNECTIONS_PER_IP"));
    }

    fn host() -> Host {
        Host {
            kernel: Some((6, 1)),
            descriptors: Some(20_000),
            locked_bytes: Some(8 << 20),
            locks_freely: false,
            rings: 4,
            ring_error: None,
            io_uring_disabled: Some("0".to_owned()),
            somaxconn: Some(4_096),
            port: Port::Free,
            ephemeral: Some(32_768..=60_999),
            reserved: Vec::new(),
            data: Data {
                error: None,
                kind: Some(0xef53),
                free_bytes: Some(10 << 30),
                newest_s: Some(1_800_000_000),
            },
            huge_pages: Some("always".to_owned()),
            small_pages: true,
            clock_s: 1_800_000_000,
            clock_source: Some("tsc".to_owned()),
            memory_bytes: Some(4 << 30),
            cores: 4,
        }
    }

    #[test]
    fn a_host_that_has_everything_is_well() {
        let findings = judge(&needs(), &host());
        assert!(
            findings
                .iter()
                .all(|finding| finding.verdict == Verdict::Ok),
            "{findings:#?}"
        );
        assert!(findings.iter().all(|finding| finding.mend.is_none()));
        assert!(is_well(&findings));
        assert!(table(&findings).ends_with("15 ok, 0 to improve, 0 failed\n"));
    }

    /// Changes one thing, and looks at the one finding that it is about.
    #[track_caller]
    fn check(
        name: &str,
        expected: Verdict,
        word: &str,
        change: impl FnOnce(&mut Needs, &mut Host),
    ) {
        let (mut needs, mut host) = (needs(), host());
        change(&mut needs, &mut host);
        let findings = judge(&needs, &host);
        let finding = findings
            .iter()
            .find(|finding| finding.check == name)
            .expect("a check of this name");
        assert_eq!(finding.verdict, expected, "{finding:?}");
        assert_eq!(
            finding.mend.is_none(),
            expected == Verdict::Ok,
            "{finding:?}"
        );
        let text = table(&findings);
        assert!(text.contains(word), "{word:?} is not in\n{text}");
        assert_eq!(
            is_well(&findings),
            expected < Verdict::Fail,
            "{findings:#?}"
        );
    }

    #[test]
    fn what_a_host_lacks_is_found_and_can_be_mended() {
        use Verdict::{Fail, Ok, Warn};
        check("kernel", Fail, "6.0 or newer", |_, h| {
            h.kernel = Some((5, 19))
        });
        check("kernel", Ok, "7.0", |_, h| h.kernel = Some((7, 0)));
        check("kernel", Warn, "unknown", |_, h| h.kernel = None);

        let refused = || Some(RingError::Refused("Operation not permitted".to_owned()));
        check("io_uring", Fail, "seccomp", |_, h| h.ring_error = refused());
        check("io_uring", Fail, "kernel.io_uring_disabled=0", |_, h| {
            h.ring_error = refused();
            h.io_uring_disabled = Some("2".to_owned());
        });
        check("io_uring", Fail, "EIO", |_, h| {
            h.ring_error = Some(RingError::Other("EIO".to_owned()));
        });

        check("locked memory", Fail, "LimitMEMLOCK=4194304", |_, h| {
            h.locked_bytes = Some(64 << 10);
        });
        check("locked memory", Fail, "ulimit -l 4096", |_, h| {
            (h.rings, h.ring_error) = (2, Some(RingError::LockedMemory));
        });
        check("locked memory", Warn, "2048 KiB", |_, h| {
            h.locked_bytes = Some(2 << 20)
        });
        check("locked memory", Ok, "CAP_IPC_LOCK", |_, h| {
            (h.locked_bytes, h.locks_freely) = (Some(0), true);
        });
        check("locked memory", Ok, "without limit", |_, h| {
            h.locked_bytes = Some(u64::MAX)
        });

        check("open files", Fail, "LimitNOFILE=15500", |_, h| {
            h.descriptors = Some(1_024)
        });
        check("open files", Ok, "15000 connections", |_, h| {
            h.descriptors = Some(15_500)
        });
        check("open files", Fail, "15000 are configured", |_, h| {
            h.descriptors = Some(15_499)
        });
        check("open files", Warn, "10000 are usual", |n, h| {
            (n.connections_max, h.descriptors) = (None, Some(4_096));
        });
        check("open files", Fail, "ulimit -n", |n, h| {
            (n.connections_max, h.descriptors) = (None, Some(515));
        });

        check("address", Fail, "in use", |_, h| h.port = Port::Taken);
        check("address", Fail, "CAP_NET_BIND_SERVICE", |_, h| {
            h.port = Port::Denied
        });
        check("address", Fail, "no such", |_, h| {
            h.port = Port::Other("no such".to_owned())
        });

        check(
            "port range",
            Warn,
            "ip_local_reserved_ports=8080",
            |_, h| {
                h.ephemeral = Some(1_024..=65_535);
            },
        );
        check("port range", Ok, "reserved", |_, h| {
            (h.ephemeral, h.reserved) = (Some(1_024..=65_535), vec![8_000..=8_100]);
        });
        check("port range", Ok, "any port", |n, h| {
            n.listen.set_port(0);
            h.ephemeral = Some(1_024..=65_535);
        });

        check("listen backlog", Warn, "somaxconn=4096", |_, h| {
            h.somaxconn = Some(128)
        });

        check("data folder", Fail, "EROFS", |_, h| {
            h.data.error = Some("EROFS".to_owned())
        });
        check("data folder", Fail, "network", |_, h| {
            h.data.kind = Some(0x6969)
        });
        // Files of several nodes may lie on one.
        check("data folder", Ok, "nfs", |n, h| {
            n.embedded_store = false;
            h.data.kind = Some(0x6969)
        });
        check("data folder", Warn, "tmpfs", |_, h| {
            h.data.kind = Some(0x0102_1994)
        });
        check("data folder", Warn, "volume", |_, h| {
            h.data.kind = Some(0x794c_7630)
        });
        check("data folder", Ok, "of its own", |_, h| {
            h.data.kind = Some(7)
        });
        check("free space", Warn, "1023 MiB", |_, h| {
            h.data.free_bytes = Some((1 << 30) - 1)
        });
        check("free space", Fail, "refuses every message", |_, h| {
            h.data.free_bytes = Some(0)
        });

        check("memory", Warn, "256 MiB;", |_, h| {
            h.memory_bytes = Some(256 << 20)
        });
        check("cores", Warn, "CAFFIS_SHARDS=2", |_, h| h.cores = 2);
        check("huge pages", Warn, "echo madvise", |_, h| {
            h.small_pages = false
        });
        check("clock", Fail, "years behind", |_, h| h.clock_s = 3);
        check("clock", Warn, "3600 s behind", |_, h| h.clock_s -= 3_600);
        check("clock source", Warn, "hpet", |_, h| {
            h.clock_source = Some("hpet".to_owned())
        });
    }

    #[test]
    fn the_json_says_the_same() {
        let mut host = host();
        host.port = Port::Taken;
        let findings = judge(&needs(), &host);
        let report: serde_json::Value = serde_json::from_str(&json(&findings)).expect("JSON");
        assert_eq!(report["ok"], false);
        let checks = report["checks"].as_array().expect("checks");
        assert_eq!(checks.len(), findings.len());
        let bad: Vec<_> = checks
            .iter()
            .filter(|check| check["verdict"] != "ok")
            .collect();
        assert_eq!(bad.len(), 1);
        assert_eq!(
            (&bad[0]["check"], &bad[0]["verdict"]),
            (&"address".into(), &"fail".into())
        );
        assert!(bad[0]["mend"].is_string() && bad[0]["found"].is_string());
    }
}
