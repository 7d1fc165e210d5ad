//! A Redis Cluster of a test's own.

use std::net::{TcpListener, TcpStream};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};
use tempfile::TempDir;

const WAIT: Duration = Duration::from_secs(60);
const SLOTS: usize = 16_384;

/// Masters with equal shares of the slots, and a replica of the first. Killed when dropped.
pub struct Cluster {
    pub nodes: Vec<Node>,
    pub masters: usize,
}

pub struct Node {
    pub port: u16,
    bus_port: u16,
    folder: TempDir,
    process: Option<Child>,
}

impl Cluster {
    pub fn start(masters: usize, replicas_of_first: usize) -> Cluster {
        // All at once, so that they differ.
        let free: Vec<TcpListener> = (0..2 * (masters + replicas_of_first))
            .map(|_| TcpListener::bind("127.0.0.1:0").expect("a free port"))
            .collect();
        let ports = free
            .iter()
            .map(|it| it.local_addr().expect("its address").port());
        let ports: Vec<u16> = ports.collect();
        drop(free);
        let mut nodes: Vec<Node> = ports
            .chunks(2)
            .map(|ports| Node::new(ports[0], ports[1]))
            .collect();
        for node in &mut nodes {
            node.restart();
        }
        for (place, node) in nodes.iter().enumerate() {
            assert_eq!(
                node.cli(&["CLUSTER", "SET-CONFIG-EPOCH", &format!("{}", place + 1)]),
                "OK"
            );
            if place < masters {
                let (from, to) = (place * SLOTS / masters, (place + 1) * SLOTS / masters - 1);
                let range = [from.to_string(), to.to_string()];
                assert_eq!(
                    node.cli(&["CLUSTER", "ADDSLOTSRANGE", &range[0], &range[1]]),
                    "OK"
                );
            }
            let (port, bus) = (node.port.to_string(), node.bus_port.to_string());
            assert_eq!(
                nodes[0].cli(&["CLUSTER", "MEET", "127.0.0.1", &port, &bus]),
                "OK"
            );
        }
        let cluster = Cluster { nodes, masters };
        cluster.wait_until_ok();
        let first = cluster.nodes[0].id();
        for replica in &cluster.nodes[masters..] {
            until("it replicates", || {
                replica.cli(&["CLUSTER", "REPLICATE", &first]) == "OK"
            });
            until("its master is reached", || {
                replica
                    .cli(&["INFO", "replication"])
                    .contains("master_link_status:up")
            });
        }
        // They vote for a replica only when all know it.
        cluster.wait_until_ok();
        cluster
    }

    /// Until every node that runs knows all nodes, and that all slots are served.
    pub fn wait_until_ok(&self) {
        let known = format!("cluster_known_nodes:{}", self.nodes.len());
        let slaves = self.nodes.len() - self.masters;
        for node in self.nodes.iter().filter(|node| node.process.is_some()) {
            until("the cluster is well", || {
                let info = node.cli(&["CLUSTER", "INFO"]);
                let nodes = node.cli(&["CLUSTER", "NODES"]);
                info.contains("cluster_state:ok")
                    && info.lines().any(|line| line.trim() == known)
                    && nodes.matches("slave").count() <= slaves
                    && !nodes.contains("handshake")
            });
        }
    }

    pub fn urls(&self) -> Vec<String> {
        let url = |node: &Node| format!("redis://127.0.0.1:{}", node.port);
        self.nodes.iter().map(url).collect()
    }

    /// The place of the master that has this channel's slot at the beginning.
    pub fn owner(&self, channel: &str) -> usize {
        self.slot(channel) * self.masters / SLOTS
    }

    pub fn slot(&self, channel: &str) -> usize {
        let slot = self.nodes[1].cli(&["CLUSTER", "KEYSLOT", channel]);
        slot.parse().expect("a slot")
    }

    /// Gives a slot, which has no keys, to another master.
    pub fn migrate(&self, slot: usize, from: usize, to: usize) {
        let (from, to) = (&self.nodes[from], &self.nodes[to]);
        let (slot, source, target) = (slot.to_string(), from.id(), to.id());
        assert_eq!(
            to.cli(&["CLUSTER", "SETSLOT", &slot, "IMPORTING", &source]),
            "OK"
        );
        assert_eq!(
            from.cli(&["CLUSTER", "SETSLOT", &slot, "MIGRATING", &target]),
            "OK"
        );
        assert_eq!(
            to.cli(&["CLUSTER", "SETSLOT", &slot, "NODE", &target]),
            "OK"
        );
        assert_eq!(
            from.cli(&["CLUSTER", "SETSLOT", &slot, "NODE", &target]),
            "OK"
        );
    }
}

impl Node {
    fn new(port: u16, bus_port: u16) -> Node {
        Node {
            port,
            bus_port,
            folder: tempfile::tempdir().expect("a folder"),
            process: None,
        }
    }

    /// Starts it, also again after a kill: it remembers its cluster.
    pub fn restart(&mut self) {
        let process = Command::new("redis-server")
            .args(["--port", &self.port.to_string(), "--bind", "127.0.0.1"])
            .args(["--cluster-enabled", "yes", "--cluster-node-timeout", "1000"])
            .args(["--cluster-port", &self.bus_port.to_string()])
            .args([
                "--save",
                "",
                "--appendonly",
                "no",
                "--repl-diskless-sync-delay",
                "0",
            ])
            .arg("--dir")
            .arg(self.folder.path())
            .stdout(Stdio::null())
            .spawn()
            .expect("redis-server; install Debian's redis-server");
        self.process = Some(process);
        until("redis-server answers", || {
            TcpStream::connect(("127.0.0.1", self.port)).is_ok() && self.cli(&["PING"]) == "PONG"
        });
    }

    /// What it answers, as text.
    pub fn cli(&self, command: &[&str]) -> String {
        let output = Command::new("redis-cli")
            .args(["-p", &self.port.to_string()])
            .args(command)
            .output()
            .expect("redis-cli; install Debian's redis-tools");
        String::from_utf8_lossy(&output.stdout).trim().to_owned()
    }

    fn id(&self) -> String {
        self.cli(&["CLUSTER", "MYID"])
    }

    /// How many listen to this sharded channel here.
    pub fn listeners(&self, channel: &str) -> u32 {
        let answer = self.cli(&["PUBSUB", "SHARDNUMSUB", channel]);
        let number = answer.lines().last().and_then(|line| line.parse().ok());
        number.unwrap_or_else(|| panic!("{answer}"))
    }

    /// `kill -9`.
    pub fn kill(&mut self) {
        if let Some(mut process) = self.process.take() {
            process.kill().expect("killed");
            process.wait().expect("gone");
        }
    }

    /// Stops it without an end (`STOP`), or lets it go on (`CONT`).
    pub fn signal(&self, name: &str) {
        let process = self.process.as_ref().expect("running");
        let status = Command::new("kill")
            .arg(format!("-{name}"))
            .arg(process.id().to_string())
            .status();
        assert!(status.expect("kill(1)").success());
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        self.kill();
    }
}

/// Waits for it.
pub fn until(what: &str, is_so: impl Fn() -> bool) {
    let deadline = Instant::now() + WAIT;
    while !is_so() {
        assert!(Instant::now() < deadline, "in vain: {what}");
        std::thread::yield_now();
    }
}
