//! What happened, to see that a campaign reaches what it is meant to reach.

macro_rules! report {
    ($( $(#[doc = $doc:literal])* $field:ident, )*) => {
        /// Counts of one seed, or of many together.
        #[derive(Default, Debug, Clone)]
        pub struct Report {
            $( $(#[doc = $doc])* pub $field: u64, )*
        }

        impl Report {
            pub fn add(&mut self, other: &Report) {
                $( self.$field += other.$field; )*
            }
        }
    };
}

report! {
    steps,
    simulated_us,
    /// Nodes, over all seeds.
    nodes,
    acked,
    events,
    crashes,
    drains,
    cuts,
    /// Clients that came back to another node than they left.
    moves,
    store_faults,
    unknown_outcomes,
    /// Writes to rooms that others held.
    writes_held,
    /// Writes that were done after the node that asked for them had crashed.
    late_writes,
    slow_closes,
    replayed,
    gate_fetches,
    duplicates,
    /// Messages that clients held at the end and that were changed.
    changed,
    /// Live events that a client heard of another node than wrote them.
    crossed,
    /// The same of `room.added`.
    added_across,
    gaps_told,
    /// Receipts of others that clients were told.
    receipts_told,
    /// Times that a client was told what another device of its user had read.
    unread_told,
    /// Rooms in which one was told to all to be typing.
    typing_told,
    /// Users whom clients saw in the end.
    presence_told,
    blocks,
    /// Files that are in messages.
    files_sent,
    /// Messages that were refused because their file was in another one, or gone.
    files_gone,
    /// Users who were erased.
    erased,
    /// Times that the beginning of a room was dropped.
    dropped,
    /// Rooms of clients who were told that their position is no longer kept.
    expired_told,
    /// Messages of the relay, for each node that follows.
    relay_sent,
    relay_lost,
    relay_doubled,
    relay_delayed,
    /// Messages that did not fit into a shard's queue.
    relay_overflows,
    relay_downs,
    relay_stalls,
    /// Times that the store lost the end of its history.
    histories_lost,
    /// Those of which the nodes took note.
    epochs_renewed,
}
