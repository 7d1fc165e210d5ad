//! The server.

#[cfg(feature = "echo")]
fn main() -> std::process::ExitCode {
    echo::main()
}

#[cfg(not(feature = "echo"))]
fn main() {}

/// The data plane alone, for the conformance suite and for measuring.
#[cfg(feature = "echo")]
mod echo {
    use caffis_chat::chat::CoreConfig;
    use caffis_chat::chat::port::{
        Identify, Identity, IdentityError, ReplySink, Store, StoreCall, StoreError, StoreReply,
        Ticket,
    };
    use caffis_chat::edge::handshake::AllowedOrigins;
    use caffis_chat::protocol::{Epoch, UnixMs};
    use caffis_chat::shard::{self, ShardsConfig};
    use std::process::ExitCode;
    use std::sync::Arc;

    struct Nothing;

    impl Store for Nothing {
        fn submit(&self, ticket: Ticket, _: StoreCall, sink: &Arc<dyn ReplySink>) {
            sink.reply(StoreReply {
                ticket,
                epoch: self.epoch(),
                result: Err(StoreError::Overloaded),
            });
        }

        fn epoch(&self) -> Epoch {
            Epoch(1)
        }

        fn durability(&self) -> &'static str {
            "commit"
        }
    }

    impl Identify for Nothing {
        fn identify(&self, _: &str, _: UnixMs) -> Result<Identity, IdentityError> {
            Err(IdentityError::Invalid)
        }
    }

    fn setting<T: std::str::FromStr>(name: &str, default: T) -> T {
        std::env::var(name)
            .ok()
            .and_then(|value| value.parse().ok())
            .unwrap_or(default)
    }

    pub fn main() -> ExitCode {
        tracing_subscriber::fmt()
            .with_writer(std::io::stderr)
            .init();
        let shards = setting("CAFFIS_SHARDS", 1);
        let listen = setting("CAFFIS_LISTEN", ([127, 0, 0, 1], 8080).into());
        let nothing = Arc::new(Nothing);
        let started = shard::start(ShardsConfig {
            listen,
            pinned: false,
            core: CoreConfig::new("echo", shards, Epoch(1)),
            seed: 1,
            origins: AllowedOrigins::SameHostOrLoopback,
            connections_max: 100_000,
            store: nothing.clone(),
            identify: nothing,
            handoff: Arc::new(|stream, _| Err(stream)),
        });
        match started.and_then(|shards| {
            eprintln!("echo on {}", shards.address());
            shards.join()
        }) {
            Ok(()) => ExitCode::SUCCESS,
            Err(error) => {
                eprintln!("{error}");
                ExitCode::FAILURE
            }
        }
    }
}
