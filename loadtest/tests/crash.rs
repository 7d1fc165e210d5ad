//! `loadtest crash` itself: green on a server that writes before it answers, red on one that does
//! not.

mod common;

use common::fake_server_args;
use loadtest::progress::Progress;
use loadtest::scenarios::common::OutputArgs;
use loadtest::scenarios::crash::{CrashArgs, run};

fn crash(durability: &str) -> Vec<String> {
    let args = CrashArgs {
        server: fake_server_args(durability),
        kills: 3,
        connections: 40,
        room_size: 4,
        rate: 300.0,
        expect_red: Vec::new(),
        output: OutputArgs {
            json: None,
            seed: Some(5),
        },
    };
    run(&args, Progress::quiet()).unwrap().failures
}

#[test]
fn a_server_that_writes_before_it_answers_is_green() {
    assert_eq!(crash("written"), Vec::<String>::new());
}

#[test]
fn a_server_that_answers_before_it_writes_is_red() {
    let failures = crash("buffered").join("\n");
    assert!(failures.contains("ahead_of_server"), "{failures}");
    assert!(failures.contains("acked_lost"), "{failures}");
}
