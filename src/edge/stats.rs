//! Counters of the driver, beside those of the core.

macro_rules! driver_stats {
    (
        counters { $( $(#[doc = $cdoc:literal])* $counter:ident, )* }
        gauges { $( $(#[doc = $gdoc:literal])* $gauge:ident, )* }
    ) => {
        /// What one shard's driver counts.
        #[derive(Clone, PartialEq, Eq, Debug, Default)]
        pub struct DriverStats {
            $( $(#[doc = $cdoc])* pub $counter: u64, )*
            $( $(#[doc = $gdoc])* pub $gauge: u64, )*
        }

        impl DriverStats {
            /// What only rises: name, help, value.
            pub fn counters(&self) -> Vec<(&'static str, &'static str, u64)> {
                vec![ $( (stringify!($counter), concat!($($cdoc),*), self.$counter), )* ]
            }

            /// What rises and falls: name, help, value.
            pub fn gauges(&self) -> Vec<(&'static str, &'static str, u64)> {
                vec![ $( (stringify!($gauge), concat!($($gdoc),*), self.$gauge), )* ]
            }
        }
    };
}

driver_stats! {
    counters {
        /// Sockets accepted.
        accepted,
        /// Times that accepting was paused because descriptors or memory ran out.
        accept_pauses,
        /// Upgrades answered.
        upgraded,
        /// Connections handed to the control plane.
        handed_off,
        /// Connections that the control plane gave back to become WebSockets.
        joined,
        /// Connections refused before they became WebSockets.
        refused,
        /// Connections refused because their address had too many.
        refused_crowded,
        /// Connections closed by us for breaking WebSocket itself.
        violations,
        /// Bytes received.
        bytes_received,
        /// Receives that found no buffer and were asked again.
        buffers_missing,
        /// Sends.
        sends,
        /// Sends that took less than there was.
        sends_short,
        /// Flushes after which the next one was put off, so that more goes out together.
        flush_pauses,
        /// Turns of the loop.
        turns,
        /// Waits in the executor, for want of work.
        idles,
        /// Answers refused because the store had too many calls of this shard under way.
        store_refused,
    }
    gauges {
        /// WebSockets open.
        open,
        /// Sockets, those being opened or closed included.
        sockets,
    }
}
