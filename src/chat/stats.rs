//! Counters of one shard: plain numbers, which the driver publishes now and then.

/// Upper bounds of the latency buckets, µs; one more bucket is above them all.
pub const LATENCY_BOUNDS_US: [u64; 16] = [
    50, 100, 250, 500, 1_000, 2_500, 5_000, 10_000, 25_000, 50_000, 100_000, 250_000, 500_000,
    1_000_000, 2_500_000, 10_000_000,
];

/// A histogram of latencies.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Latency {
    /// How many fell into each bucket, not cumulated.
    pub counts: [u64; LATENCY_BOUNDS_US.len() + 1],
    /// Their sum, µs.
    pub sum_us: u64,
}

impl Latency {
    /// Counts one.
    pub fn record(&mut self, us: u64) {
        let bucket = LATENCY_BOUNDS_US.partition_point(|bound| *bound < us);
        self.counts[bucket] += 1;
        self.sum_us += us;
    }

    /// How many were counted.
    pub fn count(&self) -> u64 {
        self.counts.iter().sum()
    }
}

macro_rules! stats {
    (
        counters { $( $(#[doc = $cdoc:literal])* $counter:ident, )* }
        gauges { $( $(#[doc = $gdoc:literal])* $gauge:ident, )* }
        latencies { $( $(#[doc = $ldoc:literal])* $latency:ident, )* }
    ) => {
        /// Counters of one shard.
        #[derive(Clone, PartialEq, Eq, Debug, Default)]
        pub struct Stats {
            $( $(#[doc = $cdoc])* pub $counter: u64, )*
            $( $(#[doc = $gdoc])* pub $gauge: u64, )*
            $( $(#[doc = $ldoc])* pub $latency: Latency, )*
        }

        impl Stats {
            /// What only rises: name, help, value.
            pub fn counters(&self) -> Vec<(&'static str, &'static str, u64)> {
                vec![ $( (stringify!($counter), concat!($($cdoc),*), self.$counter), )* ]
            }

            /// What rises and falls: name, help, value.
            pub fn gauges(&self) -> Vec<(&'static str, &'static str, u64)> {
                vec![ $( (stringify!($gauge), concat!($($gdoc),*), self.$gauge), )* ]
            }

            /// Latencies: name, help, value.
            pub fn latencies(&self) -> Vec<(&'static str, &'static str, &Latency)> {
                vec![ $( (stringify!($latency), concat!($($ldoc),*), &self.$latency), )* ]
            }
        }
    };
}

stats! {
    counters {
        /// Connections that were opened.
        connections_opened,
        /// Sessions that became ready.
        sessions_ready,
        /// Frames received.
        frames_received,
        /// Commands that were refused.
        commands_refused,
        /// Requests over HTTP that were given to the shard.
        asks,
        /// Messages acknowledged as new.
        messages_committed,
        /// Messages acknowledged as duplicates.
        messages_duplicate,
        /// Batches committed.
        batches_committed,
        /// Batches whose outcome the store did not tell.
        batches_failed,
        /// Writes that had to wait because others held their room: another node writes to it, or an operator.
        writes_held,
        /// Durable events released by the gate.
        events_released,
        /// Durable events appended to outboxes.
        deliveries,
        /// Events replayed to resuming connections.
        replayed,
        /// Bytes written to sockets.
        bytes_written,
        /// Stretches fetched from the store because an event was missing.
        gate_fetches,
        /// Connections closed because they did not read.
        closed_slow,
        /// Connections closed because they were not heard.
        closed_silent,
        /// Connections closed because their user had too many newer ones.
        closed_crowded,
        /// Connections closed because those who run the service ended them.
        closed_ended,
        /// Frames dropped by their class.
        frames_dropped,
        /// Receipts taken from clients, one for each room.
        receipts_taken,
        /// Receipts that advanced a watermark in the store: of those of one user and room only the newest.
        receipts_written,
        /// Receipts put into outboxes.
        receipts_told,
        /// Messages given to the relay, for other nodes.
        relay_published,
        /// Messages of other nodes, by the relay.
        relay_received,
        /// Messages of the relay that were passed over: of another version or history.
        relay_ignored,
        /// Questions about files: tickets, addresses, and what is to be looked at before it is sent.
        files_asked,
        /// Assertions about peers and store that did not hold, each logged.
        anomalies,
    }
    gauges {
        /// Connections open.
        connections,
        /// Sessions ready.
        sessions,
        /// Rooms with subscribers on this shard.
        rooms_local,
        /// Rooms this shard is home to.
        rooms_home,
        /// Bytes in outboxes.
        outbox_bytes,
        /// Bytes in windows.
        window_bytes,
        /// Writes waiting for a batch.
        commit_queue,
        /// Calls under way in the store.
        store_calls,
        /// Requests over HTTP under way.
        asks_waiting,
        /// Whether the relay to other nodes works: 0 or 1.
        relay_up,
        /// What is given up because there is too much to do: 0 nothing, 1 typing, 2 presence, 3 receipts too.
        load,
    }
    latencies {
        /// From received to committed.
        received_to_committed,
        /// From committed to released by the gate.
        committed_to_published,
        /// From released by the gate to written to a socket.
        published_to_written,
    }
}
