//! Faults put in on purpose, which every proof must catch: switches in the production code, which
//! only builds with the feature `sabotage` can turn on.

/// One fault.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Sabotage {
    /// A send is acknowledged before it is committed.
    AckBeforeCommit,
    /// Events are released in the order in which they arrive.
    GateSkipped,
    /// A retried send is stored again.
    DuplicateNotDetected,
    /// After a restart the last `seq` of a room is given once more.
    SeqReused,
    /// An outbox that is full drops durable events instead of closing.
    OutboxDropUnnoticed,
    /// The embedded store does not wait for the disk.
    SynchronousOff,
}

impl Sabotage {
    /// All of them, with the names that `CAFFIS_SABOTAGE` takes.
    pub const ALL: &[(&str, Sabotage)] = &[
        ("ack_before_commit", Sabotage::AckBeforeCommit),
        ("gate_skipped", Sabotage::GateSkipped),
        ("duplicate_not_detected", Sabotage::DuplicateNotDetected),
        ("seq_reused", Sabotage::SeqReused),
        ("outbox_drop_unnoticed", Sabotage::OutboxDropUnnoticed),
        ("synchronous_off", Sabotage::SynchronousOff),
    ];

    /// The fault of this name.
    pub fn from_name(name: &str) -> Option<Sabotage> {
        Self::ALL
            .iter()
            .find(|(known, _)| *known == name)
            .map(|(_, sabotage)| *sabotage)
    }
}

/// The fault that is on, if any. In builds without the feature it is a constant `None`, and every
/// question after it is compiled away.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Sabotaged(#[cfg(feature = "sabotage")] Option<Sabotage>);

impl Sabotaged {
    /// This fault on.
    #[cfg(feature = "sabotage")]
    pub fn with(sabotage: Sabotage) -> Sabotaged {
        Sabotaged(Some(sabotage))
    }

    /// Whether this fault is on.
    #[cfg(feature = "sabotage")]
    pub fn is(self, sabotage: Sabotage) -> bool {
        self.0 == Some(sabotage)
    }

    /// Whether this fault is on.
    #[cfg(not(feature = "sabotage"))]
    pub fn is(self, _: Sabotage) -> bool {
        false
    }
}
