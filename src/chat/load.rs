//! What a shard gives up first when there is too much to do: the ladder of degradation.
//!
//! Typing goes first, then presence, then receipts; what is durable never goes. Each rung is left as soon
//! as the load allows: nothing that is given up here is missed for long.

use crate::limits;

/// How much a shard gives up, from the least to the most.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Default)]
pub enum Load {
    /// Nothing.
    #[default]
    Calm,
    /// Typing.
    NoTyping,
    /// Presence as well.
    NoPresence,
    /// Receipts as well.
    NoReceipts,
}

impl Load {
    /// The rung for this much: bytes in the outboxes of a share that the shard may use, and writes
    /// that wait for a batch. The worse of the two decides.
    pub fn of(outbox_bytes: usize, outbox_share: usize, commits_waiting: usize) -> Load {
        let rung = |part: usize, whole: usize| match part.saturating_mul(8) / whole.max(1) {
            0..4 => Load::Calm,
            4..6 => Load::NoTyping,
            6 => Load::NoPresence,
            _ => Load::NoReceipts,
        };
        // The queue is a quarter full when a write waits for eight whole batches.
        let queue = commits_waiting.saturating_mul(2);
        rung(outbox_bytes, outbox_share).max(rung(queue, limits::COMMIT_QUEUE_MAX))
    }

    /// The names of what is given up, as clients know it.
    pub fn paused(self) -> &'static [&'static str] {
        match self {
            Load::Calm => &[],
            Load::NoTyping => &["typing"],
            Load::NoPresence => &["typing", "presence"],
            Load::NoReceipts => &["typing", "presence", "receipts"],
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn typing_goes_first_and_receipts_last() {
        let share = 8_000;
        let rungs = [0, 3_999, 4_000, 6_000, 7_000, 90_000];
        let rungs = rungs.map(|bytes| Load::of(bytes, share, 0));
        assert_eq!(
            rungs,
            [
                Load::Calm,
                Load::Calm,
                Load::NoTyping,
                Load::NoPresence,
                Load::NoReceipts,
                Load::NoReceipts
            ]
        );
        assert!(rungs.is_sorted());
        let paused = rungs.map(|load| load.paused().len());
        assert_eq!(paused, [0, 0, 1, 2, 3, 3]);
    }

    #[test]
    fn a_queue_of_writes_counts_as_much_as_full_outboxes() {
        let of = |waiting| Load::of(0, 1, waiting);
        assert_eq!(of(limits::COMMIT_QUEUE_MAX / 8), Load::Calm);
        assert_eq!(of(limits::COMMIT_QUEUE_MAX / 4), Load::NoTyping);
        assert_eq!(of(limits::COMMIT_QUEUE_MAX), Load::NoReceipts);
    }
}
