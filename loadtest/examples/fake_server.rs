//! The proof's fake server as a program, with its rooms in a file: what `loadtest crash` and
//! `loadtest power` are proven with. `FAKE_DURABILITY` is `synced`, `written` or `buffered`.

#[path = "../tests/fake/mod.rs"]
#[allow(dead_code)]
mod fake;

use fake::{Durability, FakeServer};

fn main() {
    let setting = |name: &str| std::env::var(name).unwrap_or_default();
    let durability = match setting("FAKE_DURABILITY").as_str() {
        "written" => Durability::Written,
        "buffered" => Durability::Buffered,
        _ => Durability::Synced,
    };
    let listen = setting("CAFFIS_LISTEN").parse().expect("CAFFIS_LISTEN");
    let folder = setting("CAFFIS_DATA_DIR");
    let _server = FakeServer::start_durable(listen, folder.as_ref(), durability);
    loop {
        std::thread::park();
    }
}
