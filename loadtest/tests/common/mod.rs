//! Finds the fake server's program beside the test's own.

use loadtest::scenarios::common::ServerArgs;

pub fn fake_server_args(durability: &str) -> ServerArgs {
    let own = std::env::current_exe().unwrap();
    let profile = own.parent().and_then(std::path::Path::parent).unwrap();
    let server = profile.join("examples/fake_server");
    assert!(
        server.is_file(),
        "{} is missing: cargo build -p loadtest --examples",
        server.display()
    );
    ServerArgs {
        server,
        server_env: vec![("FAKE_DURABILITY".to_owned(), durability.to_owned())],
        server_arg: Vec::new(),
        server_cpus: None,
        client_cpus: None,
    }
}
