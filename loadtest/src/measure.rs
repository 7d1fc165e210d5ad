//! What /proc says of a process: CPU time, memory, threads, descriptors. Reading files only.

use std::fs;
use std::time::{SystemTime, UNIX_EPOCH};

use serde::Serialize;

/// A moment of a process's life.
#[derive(Clone, Copy, Debug, Default, Serialize)]
pub struct CpuSample {
    /// Time on a core, all living threads, by the scheduler: ns.
    pub on_cpu_ns: u64,
    /// User and system time in clock ticks of 10 ms, threads that ended included.
    pub user_ticks: u64,
    pub system_ticks: u64,
    /// The whole machine, in clock ticks.
    pub machine_softirq_ticks: u64,
    pub machine_busy_ticks: u64,
    pub at_unix_us: u64,
}

/// CPU between two samples.
#[derive(Clone, Copy, Debug, Default, Serialize)]
pub struct CpuSpent {
    pub wall_s: f64,
    pub cpu_s: f64,
    pub user_s: f64,
    pub system_s: f64,
    /// Soft interrupts' part of the whole machine's busy time. On loopback they run in the context
    /// of the sender's system call and are part of its system time already.
    pub machine_softirq_share: f64,
}

const TICK_S: f64 = 0.01;

impl CpuSample {
    /// # Errors
    /// When the process is gone or another user's.
    pub fn of(pid: u32) -> Result<Self, String> {
        let stat = read(&format!("/proc/{pid}/stat"))?;
        // The name in parentheses may hold anything; fields are counted after it.
        let fields: Vec<&str> = stat
            .rsplit_once(')')
            .map_or("", |(_, rest)| rest)
            .split_whitespace()
            .collect();
        let field = |place: usize| {
            fields
                .get(place)
                .and_then(|field| field.parse().ok())
                .unwrap_or(0)
        };
        let mut on_cpu_ns = 0;
        let tasks = fs::read_dir(format!("/proc/{pid}/task")).map_err(|error| error.to_string())?;
        for task in tasks.flatten() {
            // A thread may end between the listing and the reading.
            if let Ok(schedstat) = fs::read_to_string(task.path().join("schedstat")) {
                let first = schedstat.split_whitespace().next();
                on_cpu_ns += first.and_then(|ns| ns.parse::<u64>().ok()).unwrap_or(0);
            }
        }
        let machine = read("/proc/stat")?;
        let ticks: Vec<u64> = machine
            .lines()
            .next()
            .unwrap_or("")
            .split_whitespace()
            .skip(1)
            .filter_map(|tick| tick.parse().ok())
            .collect();
        let tick = |place: usize| ticks.get(place).copied().unwrap_or(0);
        Ok(Self {
            on_cpu_ns,
            user_ticks: field(11),
            system_ticks: field(12),
            machine_softirq_ticks: tick(6),
            machine_busy_ticks: tick(0) + tick(1) + tick(2) + tick(5) + tick(6),
            at_unix_us: SystemTime::now()
                .duration_since(UNIX_EPOCH)
                .map_or(0, |elapsed| elapsed.as_micros() as u64),
        })
    }

    pub fn since(&self, earlier: &Self) -> CpuSpent {
        let seconds = |now: u64, before: u64| now.saturating_sub(before) as f64 * TICK_S;
        let user_s = seconds(self.user_ticks, earlier.user_ticks);
        let system_s = seconds(self.system_ticks, earlier.system_ticks);
        let on_cpu_s = self.on_cpu_ns.saturating_sub(earlier.on_cpu_ns) as f64 / 1e9;
        let busy = self
            .machine_busy_ticks
            .saturating_sub(earlier.machine_busy_ticks);
        let softirq = self
            .machine_softirq_ticks
            .saturating_sub(earlier.machine_softirq_ticks);
        CpuSpent {
            wall_s: self.at_unix_us.saturating_sub(earlier.at_unix_us) as f64 / 1e6,
            cpu_s: if on_cpu_s > 0.0 {
                on_cpu_s
            } else {
                user_s + system_s
            },
            user_s,
            system_s,
            machine_softirq_share: softirq as f64 / busy.max(1) as f64,
        }
    }
}

/// Memory of a process in bytes, shared pages counted by their share.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Memory {
    pub pss_bytes: u64,
    pub anonymous_bytes: u64,
}

impl Memory {
    /// # Errors
    /// When the process is gone or another user's.
    pub fn of(pid: u32) -> Result<Self, String> {
        Ok(Self::parse(&read(&format!("/proc/{pid}/smaps_rollup"))?))
    }

    fn parse(rollup: &str) -> Self {
        let bytes = |name: &str| {
            rollup
                .lines()
                .find_map(|line| line.strip_prefix(name))
                .and_then(|rest| rest.split_whitespace().next())
                .and_then(|kib| kib.parse::<u64>().ok())
                .unwrap_or(0)
                * 1024
        };
        Self {
            pss_bytes: bytes("Pss:"),
            anonymous_bytes: bytes("Pss_Anon:"),
        }
    }
}

/// How often a listen queue of this machine overflowed or dropped, so far.
pub fn listen_overflows() -> u64 {
    let Ok(netstat) = fs::read_to_string("/proc/net/netstat") else {
        return 0;
    };
    let lines: Vec<&str> = netstat
        .lines()
        .filter(|line| line.starts_with("TcpExt:"))
        .collect();
    let [names, values, ..] = lines[..] else {
        return 0;
    };
    names
        .split_whitespace()
        .zip(values.split_whitespace())
        .filter(|(name, _)| *name == "ListenOverflows" || *name == "ListenDrops")
        .filter_map(|(_, value)| value.parse::<u64>().ok())
        .max()
        .unwrap_or(0)
}

/// Open descriptors of a process; 0 if it is gone.
pub fn descriptors(pid: u32) -> usize {
    fs::read_dir(format!("/proc/{pid}/fd")).map_or(0, Iterator::count)
}

/// What the kernel holds in the buffers of all TCP sockets of this machine.
pub fn tcp_memory_bytes() -> u64 {
    let pages = fs::read_to_string("/proc/net/sockstat")
        .ok()
        .and_then(|sockstat| {
            let line = sockstat.lines().find(|line| line.starts_with("TCP:"))?;
            let (_, mem) = line.rsplit_once("mem ")?;
            mem.trim().parse::<u64>().ok()
        });
    pages.unwrap_or(0) * 4096
}

/// # Errors
/// When the process may not open that many descriptors.
pub fn check_descriptors(needed: usize) -> Result<(), String> {
    let limits = read("/proc/self/limits")?;
    let allowed = limits
        .lines()
        .find(|line| line.starts_with("Max open files"))
        .and_then(|line| line.split_whitespace().nth(3))
        .and_then(|soft| soft.parse::<usize>().ok())
        .unwrap_or(usize::MAX);
    if needed > allowed {
        return Err(format!(
            "this run needs {needed} open files and the limit is {allowed}: raise it with \
             `ulimit -n {needed}`, or use fewer connections"
        ));
    }
    Ok(())
}

fn read(path: &str) -> Result<String, String> {
    fs::read_to_string(path).map_err(|error| format!("cannot read {path}: {error}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn own_cpu_time_grows_with_work() {
        let pid = std::process::id();
        let before = CpuSample::of(pid).unwrap();
        let mut random = crate::random::Random::new(1);
        let mut sum = 0_u64;
        // Bounded by the work, not by time: some 50 ms on any machine of this decade.
        for _ in 0..20_000_000 {
            sum = sum.wrapping_add(random.next_u64());
        }
        assert_ne!(sum, 0);
        let spent = CpuSample::of(pid).unwrap().since(&before);
        assert!(spent.cpu_s > 0.001, "{spent:?}");
    }

    #[test]
    fn own_memory_is_read() {
        let memory = Memory::of(std::process::id()).unwrap();
        assert!(memory.pss_bytes > 100_000 && memory.anonymous_bytes <= memory.pss_bytes);
        let text = "x\nPss:                 12 kB\nPss_Anon:             3 kB\n";
        assert_eq!(
            Memory::parse(text),
            Memory {
                pss_bytes: 12 * 1024,
                anonymous_bytes: 3 * 1024
            }
        );
    }

    #[test]
    fn the_descriptor_limit_is_told_with_its_remedy() {
        assert!(check_descriptors(10).is_ok());
        assert!(
            check_descriptors(usize::MAX)
                .unwrap_err()
                .contains("ulimit")
        );
    }
}
