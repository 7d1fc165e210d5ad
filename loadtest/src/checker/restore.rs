//! A power cut: the witness goes back to the instant of the cut.

use super::{Asked, Checker, Outcome, Sent};

impl Checker {
    /// Sets the witness back to `snapshot`, taken at the instant of a power cut: acks and events
    /// since then are void, messages first sent since then may exist or not, and of those that were
    /// open at the cut nobody knows.
    pub fn restore(&mut self, snapshot: Self) {
        let mut messages = snapshot.messages;
        for sent in &mut messages {
            if sent.outcome == Outcome::Open && sent.attempts > 0 {
                sent.is_uncertain = true;
            }
        }
        let since = self.messages.iter().skip(messages.len()).map(|sent| Sent {
            outcome: Outcome::Void,
            is_uncertain: true,
            was_stored_before_attempt: false,
            acked_seq: 0,
            seen_seq: 0,
            ..sent.clone()
        });
        messages.extend(since);
        self.messages = messages;
        let mut changes = snapshot.changes;
        for asked in &mut changes {
            if asked.outcome == Outcome::Open && asked.attempts > 0 {
                asked.is_uncertain = true;
            }
        }
        let since = self.changes.iter().skip(changes.len()).map(|asked| Asked {
            outcome: Outcome::Void,
            is_uncertain: true,
            ack: None,
            was_gone: false,
            ..asked.clone()
        });
        changes.extend(since);
        self.changes = changes;
        self.marks = snapshot.marks;
        self.rooms = snapshot.rooms;
    }
}
