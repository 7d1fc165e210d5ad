//! What goes wrong, and how long it takes until it is right again.

use std::time::Duration;

use super::{Fault, Run, telling::Outcome};
use crate::proxy::Mode;
use crate::world::{SetupError, State};

/// Until a fault that was taken away is over for all: a multiple of every goal.
const RECOVERY_LIMIT: Duration = Duration::from_secs(60);
/// Between two looks from outside at something that starts.
const LOOK_EVERY_US: u64 = 20_000;

impl Run<'_> {
    /// Lets the fault happen and end, with the load on.
    ///
    /// # Errors
    /// When something does not come back in time.
    pub(super) fn happen(&mut self, fault: Fault, outcome: &mut Outcome) -> Result<(), SetupError> {
        let time = Duration::from_secs_f64(self.args.seconds_of_fault);
        match fault {
            Fault::Calm | Fault::All => self.world.run_for(time),
            Fault::KillNode => self.kill_nodes(outcome),
            Fault::RestartPostgres => self.restart_postgres(outcome, time),
            Fault::PostgresAway => {
                self.cluster.set_postgres_lines(Mode::BlackHole)?;
                self.world.run_for(time)?;
                self.cluster.set_postgres_lines(Mode::Pass)?;
                self.wait_resumed(outcome)
            }
            Fault::KillRedis => self.kill_redis(time),
            Fault::RedisAway => {
                self.cluster.set_redis_lines(Mode::BlackHole)?;
                self.world.run_for(time)?;
                self.cluster.set_redis_lines(Mode::Pass)
            }
            Fault::RedisStalled => {
                self.cluster.redis.stop()?;
                self.world.run_for(time)?;
                self.cluster.redis.go_on()
            }
            Fault::RedisPartition => {
                let Some(to_redis) = self.cluster.nodes.first().map(|node| node.to_redis) else {
                    return Ok(());
                };
                self.cluster.proxy.set(to_redis, Mode::BlackHole)?;
                self.world.run_for(time)?;
                self.cluster.proxy.set(to_redis, Mode::Pass)
            }
            Fault::Rolling => self.roll(outcome),
        }
    }

    fn kill_nodes(&mut self, outcome: &mut Outcome) -> Result<(), SetupError> {
        for kill in 1..=self.args.kills {
            let wait_ms = self.random.between(300, 1500);
            self.world.run_for(Duration::from_millis(wait_ms))?;
            self.cluster.check_alive()?;
            let victim = self.random.below(self.cluster.nodes.len() as u64) as usize;
            let killed_us = self.world.state.clock.now_us();
            let Self {
                cluster,
                world,
                workshop,
                ..
            } = self;
            world.aside(|| cluster.kill_node(victim, workshop))??;
            self.wait_empty(victim)?;
            // Sometimes it is back before its clients looked for another one, sometimes long after.
            let down_ms = self.random.below(1000);
            self.world.run_for(Duration::from_millis(down_ms))?;
            self.cluster.launch_node(victim, &mut self.workshop)?;
            self.wait_all_back(killed_us, outcome)?;
            self.wait_node(victim)?;
            self.world.rebalance();
            self.world.connect_wanted(RECOVERY_LIMIT)?;
            let line = format!(
                "kill {kill}/{} (n{}) after {wait_ms} ms: all back in {:.2} s; {}",
                self.args.kills,
                victim + 1,
                outcome.back_s.last().copied().unwrap_or(0.0),
                self.world.state.line()
            );
            self.world.progress.line(&line);
            if !self.world.state.checker.findings.is_clean() {
                break;
            }
        }
        Ok(())
    }

    fn restart_postgres(
        &mut self,
        outcome: &mut Outcome,
        time: Duration,
    ) -> Result<(), SetupError> {
        for _ in 0..self.args.restarts {
            let wait_ms = self.random.between(300, 1500);
            self.world.run_for(Duration::from_millis(wait_ms))?;
            let Self {
                cluster,
                world,
                workshop,
                ..
            } = self;
            let killed_us = world.state.clock.now_us();
            world.aside(|| {
                let (postgres, janitor) = (&mut cluster.postgres, &mut workshop.janitor);
                // The statistics are lost by the kill.
                postgres.deadlocks()?;
                postgres.kill(janitor)?;
                postgres.launch(janitor)?;
                postgres.wait_accepting()
            })??;
            let back_us = world.state.clock.now_us() - killed_us;
            outcome.restarted_s.push(back_us as f64 / 1e6);
            self.wait_resumed(outcome)?;
            self.world.run_for(time / self.args.restarts.max(1))?;
        }
        Ok(())
    }

    fn kill_redis(&mut self, time: Duration) -> Result<(), SetupError> {
        let half = time / (2 * self.args.restarts.max(1));
        for _ in 0..self.args.restarts {
            let Self {
                cluster,
                world,
                workshop,
                ..
            } = self;
            world.aside(|| cluster.redis.kill(&mut workshop.janitor))??;
            self.world.run_for(half)?;
            self.cluster.redis.launch(&mut self.workshop.janitor)?;
            self.world.run_for(half)?;
            self.cluster.redis.check_alive()?;
        }
        Ok(())
    }

    fn roll(&mut self, outcome: &mut Outcome) -> Result<(), SetupError> {
        for node in 0..self.cluster.nodes.len() {
            let told_us = self.world.state.clock.now_us();
            let Self {
                cluster,
                world,
                workshop,
                ..
            } = self;
            let status = world.aside(|| cluster.terminate_node(node, workshop))??;
            if !status.success() {
                return Err(SetupError(format!("n{} ended: {status}", node + 1)));
            }
            self.wait_empty(node)?;
            self.cluster.launch_node(node, &mut self.workshop)?;
            self.wait_all_back(told_us, outcome)?;
            self.wait_node(node)?;
            self.world.rebalance();
            self.world.connect_wanted(RECOVERY_LIMIT)?;
            let last = self.cluster.nodes.len() - 1;
            if node == 0 && last > 0 && self.args.cluster.upgrade_from.is_some() {
                self.crash_of_the_old(last, outcome)?;
            }
        }
        Ok(())
    }

    /// A node of the old version is killed and starts again when the database is the new one's already.
    fn crash_of_the_old(&mut self, node: usize, outcome: &mut Outcome) -> Result<(), SetupError> {
        let killed_us = self.world.state.clock.now_us();
        let Self {
            cluster,
            world,
            workshop,
            ..
        } = self;
        world.aside(|| cluster.kill_node(node, workshop))??;
        self.wait_empty(node)?;
        self.cluster.launch_node(node, &mut self.workshop)?;
        self.wait_all_back(killed_us, outcome)?;
        self.wait_node(node)?;
        self.world.rebalance();
        self.world.connect_wanted(RECOVERY_LIMIT)?;
        Ok(())
    }

    /// Until every node acknowledged a send again.
    fn wait_resumed(&mut self, outcome: &mut Outcome) -> Result<(), SetupError> {
        let began_us = self.world.state.clock.now_us();
        let before = self.world.state.acks_by_node();
        wait(
            &mut self.world,
            "sends are not acknowledged again",
            |state| {
                let now = state.acks_by_node();
                now.iter().zip(&before).all(|(now, before)| now > before)
            },
        )?;
        let now_us = self.world.state.clock.now_us();
        outcome.resumed_s.push((now_us - began_us) as f64 / 1e6);
        wait(
            &mut self.world,
            "what was due meanwhile is not acknowledged",
            |state| {
                state
                    .oldest_open_us()
                    .is_none_or(|due_us| due_us >= began_us)
            },
        )?;
        let now_us = self.world.state.clock.now_us();
        outcome.caught_up_s.push((now_us - began_us) as f64 / 1e6);
        Ok(())
    }

    /// Until nobody is connected to a node that is gone: or nobody would have to come back.
    fn wait_empty(&mut self, node: usize) -> Result<(), SetupError> {
        wait(&mut self.world, "connections outlive their node", |state| {
            state.ready_by_node().get(node) == Some(&0)
        })
    }

    fn wait_all_back(&mut self, since_us: u64, outcome: &mut Outcome) -> Result<(), SetupError> {
        wait(&mut self.world, "not all clients are back", |state| {
            state.missing() == 0
        })?;
        let now_us = self.world.state.clock.now_us();
        outcome.back_s.push((now_us - since_us) as f64 / 1e6);
        Ok(())
    }

    fn wait_node(&mut self, node: usize) -> Result<(), SetupError> {
        let Self { cluster, world, .. } = self;
        world.aside(|| cluster.wait_node_ready(node))?
    }
}

/// Goes on until something is so, looking now and then.
fn wait(
    world: &mut crate::world::World,
    failure: &str,
    mut done: impl FnMut(&mut State) -> bool,
) -> Result<(), SetupError> {
    let mut next_look_us = 0;
    let is_done = world.run_until(RECOVERY_LIMIT, |state| {
        if state.clock.now_us() < next_look_us {
            return false;
        }
        let is_done = done(state);
        next_look_us = state.clock.now_us() + LOOK_EVERY_US;
        is_done
    })?;
    if is_done {
        return Ok(());
    }
    let state = &world.state;
    Err(SetupError(format!(
        "{failure} after {} s: {} ready of {}, by node {:?}, {} open, closes {:?}, errors {:?}",
        RECOVERY_LIMIT.as_secs(),
        state.ready,
        state.wanted(),
        state.ready_by_node(),
        state.unacked,
        state.stats.closes,
        state.stats.errors,
    )))
}
