//! Several nodes of the server under test on one private PostgreSQL and one private Redis, each node
//! with lines of its own to both, so that any of them can be killed, cut off or stalled alone.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitStatus;
use std::time::Duration;

use clap::Args;

use crate::backends::{Postgres, PostgresPlan, Redis};
use crate::proxy::{Link, Mode, Proxy};
use crate::scenarios::common::{ServerArgs, Workshop};
use crate::server::{Server, ServerPlan, free_address};
use crate::world::SetupError;

/// Until a node of a cluster answers its readiness for the first time: it may have to migrate.
const NODE_START_LIMIT: Duration = Duration::from_secs(60);
/// From SIGTERM to its end.
const NODE_END_LIMIT: Duration = Duration::from_secs(30);

#[derive(Args, Clone, Debug)]
pub struct ClusterArgs {
    /// Shards of each node, one number a node: different ones, as nodes of different machines have.
    #[arg(long, value_delimiter = ',', default_value = "1,2,1")]
    pub shards: Vec<u32>,
    /// NAME=VALUE for the private PostgreSQL; may be repeated.
    #[arg(long = "postgres-setting", value_name = "NAME=VALUE")]
    pub postgres_settings: Vec<String>,
    /// A server program of another version: all nodes begin with it, and each is the server under test once
    /// it was stopped by SIGTERM (`--fault rolling`). One that is killed starts again as what it was.
    #[arg(long, value_name = "PROGRAM")]
    pub upgrade_from: Option<PathBuf>,
    /// Keep the logs of all programs here, instead of throwing them away in the end.
    #[arg(long)]
    pub logs: Option<PathBuf>,
}

pub struct Node {
    plan: ServerPlan,
    /// What it is after its next regular end.
    next: PathBuf,
    server: Option<Server>,
    pub to_postgres: Link,
    pub to_redis: Link,
}

pub struct Cluster {
    pub postgres: Postgres,
    pub redis: Redis,
    pub proxy: Proxy,
    pub nodes: Vec<Node>,
}

impl Cluster {
    /// Starts everything and waits until all nodes are ready. `postgres_data`: a folder of its own,
    /// else one in the workshop.
    ///
    /// # Errors
    /// When a program is missing, or something does not start, with the end of its log.
    pub fn start(
        server: &ServerArgs,
        args: &ClusterArgs,
        postgres_data: Option<PathBuf>,
        workshop: &mut Workshop,
    ) -> Result<Self, SetupError> {
        let base = server.plan(&workshop.folder)?;
        let logs = args.logs.as_ref().unwrap_or(&workshop.folder).clone();
        std::fs::create_dir_all(&logs)?;
        let plan = PostgresPlan {
            data_dir: postgres_data.unwrap_or_else(|| workshop.folder.join("postgres")),
            log: logs.join("postgres.log"),
            settings: args.postgres_settings.clone(),
        };
        let postgres = Postgres::start(plan, &mut workshop.janitor)?;
        let redis = Redis::start(&workshop.folder, &logs, &mut workshop.janitor)?;
        let proxy = Proxy::start()?;
        let mut taken = vec![postgres.address, redis.address];
        let mut nodes = Vec::new();
        for (place, shards) in args.shards.iter().enumerate() {
            let name = format!("n{}", place + 1);
            let (to_postgres, postgres_address) = proxy.link(postgres.address)?;
            let (to_redis, redis_address) = proxy.link(redis.address)?;
            let mut listen = free_address()?;
            while taken.contains(&listen) {
                listen = free_address()?;
            }
            taken.push(listen);
            let mut plan = base.clone();
            plan.data_dir = workshop.folder.join(&name);
            std::fs::create_dir(&plan.data_dir)?;
            plan.log = logs.join(format!("{name}.log"));
            plan.listen = listen;
            let next = plan.program.clone();
            if let Some(program) = &args.upgrade_from {
                plan.program.clone_from(program);
            }
            let own = [
                ("CAFFIS_NODE", name),
                ("CAFFIS_SHARDS", shards.to_string()),
                ("CAFFIS_DATABASE_URL", postgres.url(postgres_address)),
                ("CAFFIS_REDIS_URL", format!("redis://{redis_address}")),
            ];
            let own = own.map(|(name, value)| (name.to_owned(), value));
            // What the command line says comes last and wins.
            plan.env.splice(0..0, own);
            nodes.push(Node {
                plan,
                next,
                server: None,
                to_postgres,
                to_redis,
            });
        }
        let mut cluster = Self {
            postgres,
            redis,
            proxy,
            nodes,
        };
        // All at once: the first start, with its migration, is a race that they must win too.
        for node in 0..cluster.nodes.len() {
            cluster.launch_node(node, workshop)?;
        }
        for node in 0..cluster.nodes.len() {
            cluster.wait_node_ready(node)?;
        }
        Ok(cluster)
    }

    /// Where the nodes listen, in order.
    pub fn targets(&self) -> Vec<SocketAddr> {
        self.nodes.iter().map(|node| node.plan.listen).collect()
    }

    /// # Errors
    /// When something ended by itself, with the end of its log.
    pub fn check_alive(&mut self) -> Result<(), SetupError> {
        for node in &mut self.nodes {
            if let Some(server) = &mut node.server {
                server.check_alive()?;
            }
        }
        Ok(())
    }

    /// Starts a node (again) and does not wait.
    ///
    /// # Errors
    /// When the program does not start.
    pub fn launch_node(&mut self, node: usize, workshop: &mut Workshop) -> Result<(), SetupError> {
        let node = &mut self.nodes[node];
        if node.server.is_none() {
            node.server = Some(node.plan.start(&mut workshop.janitor)?);
        }
        Ok(())
    }

    /// kill -9.
    ///
    /// # Errors
    /// When the system refuses.
    pub fn kill_node(&mut self, node: usize, workshop: &mut Workshop) -> Result<(), SetupError> {
        match self.nodes[node].server.take() {
            Some(server) => server.kill(&mut workshop.janitor),
            None => Ok(()),
        }
    }

    /// SIGTERM: the node drains and ends. Waits for it.
    ///
    /// # Errors
    /// When it does not end in time, or is not running.
    pub fn terminate_node(
        &mut self,
        node: usize,
        workshop: &mut Workshop,
    ) -> Result<ExitStatus, SetupError> {
        let Node {
            plan, next, server, ..
        } = &mut self.nodes[node];
        plan.program.clone_from(next);
        match server.take() {
            Some(server) => server.terminate(&mut workshop.janitor, NODE_END_LIMIT),
            None => Err(SetupError(format!("n{} is not running", node + 1))),
        }
    }

    /// Waits until a node that was started answers its readiness.
    ///
    /// # Errors
    /// When it ends or does not get ready in time, with the end of its log.
    pub fn wait_node_ready(&mut self, node: usize) -> Result<(), SetupError> {
        match &mut self.nodes[node].server {
            Some(server) => server.wait_ready(NODE_START_LIMIT),
            None => Err(SetupError(format!("n{} is not running", node + 1))),
        }
    }

    /// All nodes' lines to PostgreSQL.
    ///
    /// # Errors
    /// When the proxy is gone.
    pub fn set_postgres_lines(&self, mode: Mode) -> Result<(), SetupError> {
        self.nodes
            .iter()
            .try_for_each(|node| self.proxy.set(node.to_postgres, mode))
    }

    /// All nodes' lines to Redis.
    ///
    /// # Errors
    /// When the proxy is gone.
    pub fn set_redis_lines(&self, mode: Mode) -> Result<(), SetupError> {
        self.nodes
            .iter()
            .try_for_each(|node| self.proxy.set(node.to_redis, mode))
    }
}
