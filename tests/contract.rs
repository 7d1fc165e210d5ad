//! What every store must do, in the words of [`caffis_chat::chat::port`] alone, run against each
//! backend.

#[path = "contract/harness.rs"]
mod harness;
#[path = "contract/sends.rs"]
mod sends;
