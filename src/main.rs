//! The server's program: settings first, then the node.

use caffis_chat::config::{Config, Refused, Start};
use caffis_chat::{node, tasks};
use std::process::ExitCode;

/// malloc: less memory per connection and steadier under load than the system's.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Exit code of settings that cannot be run, as of a command line that makes no sense.
const EXIT_USAGE: u8 = 2;

fn main() -> ExitCode {
    // Two providers are in the program; where none is named this is the one. Only the first call
    // counts, and this is it.
    let _first = rustls::crypto::aws_lc_rs::default_provider().install_default();
    match Config::load() {
        Ok(Start::Run(config)) => node::run(*config),
        Ok(Start::Do(config, task)) => tasks::perform(&config, &task),
        Ok(Start::Print(text)) => {
            print!("{text}");
            ExitCode::SUCCESS
        }
        // clap tells help and version this way too, each with its own stream and code.
        Err(Refused::Usage(error)) => error.exit(),
        Err(problems @ Refused::Problems(_)) => {
            eprintln!("{problems}");
            ExitCode::from(EXIT_USAGE)
        }
    }
}
