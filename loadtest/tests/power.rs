//! `loadtest power` itself: green on a server that syncs before it answers, red on one that only
//! writes. Needs root and xfsprogs, hence a feature of its own.

mod common;

use common::fake_server_args;
use loadtest::disk::FileSystem;
use loadtest::progress::Progress;
use loadtest::scenarios::common::OutputArgs;
use loadtest::scenarios::power::{PowerArgs, run};

fn power(durability: &str, file_system: FileSystem) -> Vec<String> {
    let args = PowerArgs {
        server: fake_server_args(durability),
        cuts: 2,
        connections: 40,
        room_size: 4,
        rate: 100.0,
        file_system,
        expect_red: Vec::new(),
        output: OutputArgs {
            json: None,
            seed: Some(6),
        },
    };
    run(&args, Progress::quiet()).unwrap().failures
}

#[test]
fn a_server_that_syncs_is_green_on_ext4() {
    assert_eq!(power("synced", FileSystem::Ext4), Vec::<String>::new());
}

#[test]
fn a_server_that_syncs_is_green_on_xfs() {
    assert_eq!(power("synced", FileSystem::Xfs), Vec::<String>::new());
}

#[test]
fn a_server_that_does_not_sync_is_red() {
    assert!(!power("written", FileSystem::Ext4).is_empty());
}
