//! The world over several nodes, with one server behind two lines: clients are spread, leave a node
//! that is cut off, repeat through the other what had no answer, and the checker sees all of it.

mod common;
#[allow(dead_code)]
mod fake;

use std::time::Duration;

use fake::{FakeServer, Fault, SECRET};
use loadtest::cluster::ClusterArgs;
use loadtest::layout::Layout;
use loadtest::progress::Progress;
use loadtest::proxy::{Link, Mode, Proxy};
use loadtest::scenarios::cluster::{ClusterScenarioArgs, Fault as ClusterFault, run};
use loadtest::scenarios::common::OutputArgs;
use loadtest::scenarios::mixed::MixArgs;
use loadtest::world::{Settings, World};

const CLIENTS: usize = 24;
const LIMIT: Duration = Duration::from_secs(20);

struct Nodes {
    _server: FakeServer,
    proxy: Proxy,
    links: [Link; 2],
    world: World,
}

/// Two lines to one server, clients connected and rooms made.
fn nodes() -> Nodes {
    let server = FakeServer::start(Fault::None, 0);
    let proxy = Proxy::start().unwrap();
    let (first, first_address) = proxy.link(server.address).unwrap();
    let (second, second_address) = proxy.link(server.address).unwrap();
    let mut settings = Settings::new(SECRET, 7);
    settings.backoff_first = Duration::from_millis(20);
    settings.backoff_cap = Duration::from_millis(100);
    let layout = Layout::mixed(CLIENTS, &[2, 6]);
    let targets = [first_address, second_address];
    let mut world = World::over(&targets, "/v1/ws", &layout, settings, Progress::quiet()).unwrap();
    world.want_all();
    world.connect_wanted(LIMIT).unwrap();
    world.make_rooms(LIMIT).unwrap();
    Nodes {
        _server: server,
        proxy,
        links: [first, second],
        world,
    }
}

fn is_clean(world: &mut World) {
    assert!(world.drain(LIMIT).unwrap(), "{}", world.state.line());
    let histories = world.read_histories(LIMIT).unwrap();
    world.state.checker.finish(&histories);
    let findings = &world.state.checker.findings;
    assert!(findings.is_clean(), "{:#?}", findings.examples());
}

fn sent(world: &mut World, more: u64) {
    let sends = world.state.stats.sends + more;
    assert!(
        world
            .run_until(LIMIT, |state| state.stats.sends >= sends)
            .unwrap()
    );
}

#[test]
fn members_are_spread_and_deliveries_told_apart_by_node() {
    let mut nodes = nodes();
    let world = &mut nodes.world;
    assert_eq!(world.state.ready_by_node(), [CLIENTS / 2; 2]);
    let now_us = world.state.clock.now_us();
    world.state.stats.begin_phase("calm", now_us);
    world.begin_load(400.0, LIMIT);
    sent(world, 150);
    is_clean(world);
    let phase = &world.state.stats.phases[0];
    let (same, cross) = (phase.same_node.summary(), phase.cross_node.summary());
    assert!(same.count > 0 && cross.count > 0);
    // Every message, to every member.
    let messages = world.state.checker.messages().iter();
    let members = messages.map(|sent| world.members(sent.room).len() as u64);
    assert_eq!(same.count + cross.count, members.sum::<u64>());
    assert!(world.state.acks_by_node().iter().all(|acks| *acks > 0));
}

#[test]
fn clients_of_a_lost_node_come_back_on_the_other_and_repeat_what_was_open() {
    let Nodes {
        mut world,
        proxy,
        links,
        _server,
    } = nodes();
    world.begin_load(400.0, LIMIT);
    sent(&mut world, 50);
    // What is sent now reaches the server, and its answers do not come: a line that dies in between.
    proxy.set(links[0], Mode::BlackHole).unwrap();
    sent(&mut world, 50);
    proxy.set(links[0], Mode::Cut).unwrap();
    let is_moved = world
        .run_until(LIMIT, |state| state.ready_by_node() == [0, CLIENTS])
        .unwrap();
    assert!(is_moved, "{:?}", world.state.ready_by_node());
    sent(&mut world, 50);
    assert!(world.state.stats.retries > 0);

    proxy.set(links[0], Mode::Pass).unwrap();
    assert_eq!(world.rebalance(), CLIENTS / 2);
    let is_even = world
        .run_until(LIMIT, |state| state.ready_by_node() == [CLIENTS / 2; 2])
        .unwrap();
    assert!(is_even, "{:?}", world.state.ready_by_node());
    sent(&mut world, 50);
    is_clean(&mut world);
}

#[test]
fn a_silence_is_waited_out_on_the_same_connections() {
    let Nodes {
        mut world,
        proxy,
        links,
        _server,
    } = nodes();
    let connects = world.state.stats.connects;
    world.begin_load(400.0, LIMIT);
    sent(&mut world, 50);
    proxy.set(links[1], Mode::BlackHole).unwrap();
    sent(&mut world, 100);
    assert!(world.state.oldest_open_us().is_some());
    proxy.set(links[1], Mode::Pass).unwrap();
    is_clean(&mut world);
    assert_eq!(world.state.oldest_open_us(), None);
    assert_eq!(world.state.stats.connects, connects);
}

/// `loadtest cluster` itself, on one fake node: its backends are real, and it needs none of them.
fn cluster(durability: &str, faults: &[ClusterFault]) -> Vec<String> {
    let args = ClusterScenarioArgs {
        server: common::fake_server_args(durability),
        cluster: ClusterArgs {
            shards: vec![1],
            postgres_settings: Vec::new(),
            upgrade_from: None,
            logs: None,
        },
        faults: faults.to_vec(),
        clients: 40,
        rooms_of: vec![2, 4],
        rate: 300.0,
        seconds_of_fault: 1.0,
        seconds_around: 0.5,
        kills: 2,
        restarts: 1,
        expect_red: Vec::new(),
        mix: MixArgs::default(),
        output: OutputArgs {
            json: None,
            seed: Some(9),
        },
    };
    run(&args, Progress::quiet()).unwrap().failures
}

#[test]
fn a_server_that_writes_before_it_answers_is_green_whatever_fails() {
    let faults = [
        ClusterFault::Calm,
        ClusterFault::KillNode,
        ClusterFault::RestartPostgres,
        ClusterFault::PostgresAway,
        ClusterFault::KillRedis,
        ClusterFault::RedisStalled,
        ClusterFault::RedisPartition,
    ];
    assert_eq!(cluster("written", &faults), Vec::<String>::new());
}

#[test]
fn a_node_that_answers_before_it_writes_is_red_when_it_is_killed() {
    let failures = cluster("buffered", &[ClusterFault::KillNode]).join("\n");
    assert!(failures.contains("ahead_of_server"), "{failures}");
}
