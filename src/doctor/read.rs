//! Asks the host. What it does not say is `None`; the judgement is in [`super::judge`].
//!
//! Invariant: what is made to find out (rings, a listener, one small file) is gone afterwards.

#![allow(
    clippy::disallowed_methods,
    clippy::disallowed_types,
    clippy::disallowed_macros
)]

use super::Needs;
use super::judge::{Data, Host, Port, RingError};
use crate::edge::RING;
use crate::sys::{self, Limit, ListenOptions, Ring};
use std::fs::{self, File};
use std::io::{self, ErrorKind, Write};
use std::net::SocketAddr;
use std::ops::RangeInclusive;
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

/// The bit of CAP_IPC_LOCK in a set of capabilities (capabilities(7)).
const CAP_IPC_LOCK: u64 = 1 << 14;
/// Files of the data folder that are looked at; the store has a handful.
const FILES_MAX: usize = 1_000;

/// Everything.
pub fn host(needs: &Needs) -> Host {
    let (rings, ring_error) = rings(usize::from(needs.shards));
    let proc_sys = |name: &str| line(&format!("/proc/sys/{name}"));
    Host {
        kernel: proc_sys("kernel/osrelease").and_then(|text| version(&text)),
        descriptors: sys::raise_descriptors().ok(),
        locked_bytes: sys::limit(Limit::LockedBytes).ok().map(|(soft, _)| soft),
        locks_freely: status_field("CapEff:")
            .and_then(|set| u64::from_str_radix(&set, 16).ok())
            .is_some_and(|set| set & CAP_IPC_LOCK != 0),
        rings,
        ring_error,
        io_uring_disabled: proc_sys("kernel/io_uring_disabled"),
        somaxconn: proc_sys("net/core/somaxconn").and_then(|text| text.parse().ok()),
        port: port(needs.listen),
        ephemeral: proc_sys("net/ipv4/ip_local_port_range").and_then(|text| {
            let mut ports = text.split_whitespace().map(str::parse);
            Some(ports.next()?.ok()?..=ports.next()?.ok()?)
        }),
        reserved: ranges(&proc_sys("net/ipv4/ip_local_reserved_ports").unwrap_or_default()),
        data: data(&needs.data_dir),
        huge_pages: line("/sys/kernel/mm/transparent_hugepage/enabled")
            .and_then(|text| Some(text.split_once('[')?.1.split_once(']')?.0.to_owned())),
        small_pages: sys::small_pages().is_ok(),
        clock_s: unix_s(SystemTime::now()),
        clock_source: line("/sys/devices/system/clocksource/clocksource0/current_clocksource"),
        memory_bytes: memory_bytes(),
        // Without an answer, one.
        cores: std::thread::available_parallelism().map_or(1, usize::from),
    }
}

fn line(path: &str) -> Option<String> {
    fs::read_to_string(path)
        .ok()
        .map(|text| text.trim().to_owned())
}

fn status_field(name: &str) -> Option<String> {
    line("/proc/self/status")?
        .lines()
        .find_map(|line| Some(line.strip_prefix(name)?.trim().to_owned()))
}

fn version(text: &str) -> Option<(u32, u32)> {
    let mut parts = text.split(|c: char| !c.is_ascii_digit());
    Some((parts.next()?.parse().ok()?, parts.next()?.parse().ok()?))
}

/// `8080,9000-9010`.
fn ranges(text: &str) -> Vec<RangeInclusive<u16>> {
    text.split(',')
        .filter_map(|item| {
            let (low, high) = item.split_once('-').unwrap_or((item, item));
            Some(low.trim().parse().ok()?..=high.trim().parse().ok()?)
        })
        .collect()
}

/// How many rings like a shard's can be had at once, up to as many as there are shards.
fn rings(shards: usize) -> (usize, Option<RingError>) {
    let mut rings = Vec::with_capacity(shards);
    while rings.len() < shards {
        match Ring::new(RING) {
            Ok(ring) => rings.push(ring),
            Err(error) => {
                let refused = match error.raw_os_error() {
                    Some(libc::ENOMEM) => RingError::LockedMemory,
                    Some(libc::ENOSYS | libc::EPERM | libc::EACCES | libc::EINVAL) => {
                        RingError::Refused(error.to_string())
                    }
                    _ => RingError::Other(error.to_string()),
                };
                return (rings.len(), Some(refused));
            }
        }
    }
    (rings.len(), None)
}

fn port(listen: SocketAddr) -> Port {
    let options = ListenOptions {
        backlog: 1,
        send_buffer_bytes: 4096,
        shared: false,
    };
    match sys::listen(listen, options) {
        Ok(_closed_at_once) => Port::Free,
        Err(error) => match error.kind() {
            ErrorKind::AddrInUse => Port::Taken,
            ErrorKind::PermissionDenied => Port::Denied,
            _ => Port::Other(error.to_string()),
        },
    }
}

fn data(folder: &Path) -> Data {
    // The node makes the folder; until then its place is what counts.
    let mut place = if folder.as_os_str().is_empty() {
        PathBuf::from(".")
    } else {
        folder.to_owned()
    };
    while !place.exists() {
        place = match place.parent() {
            Some(parent) if !parent.as_os_str().is_empty() => parent.to_owned(),
            Some(_) | None => PathBuf::from("."),
        };
    }
    let stat = rustix::fs::statfs(&place).ok();
    Data {
        error: write(&place)
            .err()
            .map(|error| format!("{}: {error}", place.display())),
        // As wide as the kernel's: the numbers are 32 bits, signed on some architectures.
        kind: stat.as_ref().map(|stat| u64::from(stat.f_type as u32)),
        free_bytes: stat
            .as_ref()
            .map(|stat| stat.f_bavail.saturating_mul(stat.f_bsize.max(1) as u64)),
        newest_s: newest_s(folder),
    }
}

/// Writes and syncs a small file, and removes it.
fn write(folder: &Path) -> io::Result<()> {
    let path = folder.join(format!(".caffis-doctor-{}", std::process::id()));
    let written = File::create_new(&path).and_then(|mut file| {
        file.write_all(b"x")?;
        file.sync_all()
    });
    let removed = match &written {
        Err(error) if error.kind() == ErrorKind::AlreadyExists => Ok(()),
        Ok(()) | Err(_) => fs::remove_file(&path).or_else(|error| match error.kind() {
            ErrorKind::NotFound => Ok(()),
            _ => Err(error),
        }),
    };
    written.and(removed)
}

fn newest_s(folder: &Path) -> Option<u64> {
    fs::read_dir(folder)
        .ok()?
        .take(FILES_MAX)
        .filter_map(|entry| entry.ok()?.metadata().ok()?.modified().ok())
        .map(unix_s)
        .max()
}

fn unix_s(time: SystemTime) -> u64 {
    time.duration_since(UNIX_EPOCH)
        .map_or(0, |since| since.as_secs())
}

/// Of the container if it has a limit, else of the machine.
fn memory_bytes() -> Option<u64> {
    let machine = line("/proc/meminfo")?
        .lines()
        .find_map(|line| {
            line.strip_prefix("MemTotal:")?
                .split_whitespace()
                .next()?
                .parse()
                .ok()
        })
        .map(|kib: u64| kib << 10)?;
    let container = line("/sys/fs/cgroup/memory.max").and_then(|text| text.parse().ok());
    Some(container.map_or(machine, |limit: u64| limit.min(machine)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_kernel_writes_is_read() {
        assert_eq!(version("6.1.0-13-amd64"), Some((6, 1)));
        assert_eq!(version("7.0"), Some((7, 0)));
        assert_eq!(version(""), None);
        assert_eq!(ranges("8080,9000-9010"), [8080..=8080, 9000..=9010]);
        assert_eq!(ranges(""), []);
    }

    #[test]
    fn a_folder_is_looked_at_and_left_as_it_was() {
        let folder =
            std::env::temp_dir().join(format!("caffis-doctor-test-{}", std::process::id()));
        fs::create_dir(&folder).expect("made");
        for path in [folder.clone(), folder.join("not/there/yet")] {
            let data = data(&path);
            assert_eq!(data.error, None);
            assert!(data.kind.is_some() && data.free_bytes.is_some());
        }
        assert_eq!(fs::read_dir(&folder).expect("a folder").count(), 0);
        fs::remove_dir(&folder).expect("empty");
    }
}
