//! The server.
fn main() {
    print!("{}", caffis_chat::config::settings::example());
}
