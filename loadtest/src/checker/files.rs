//! Files of messages, and messages that a search found.

use uuid::Uuid;

use super::{Checker, Observed};
use crate::ids::{MessageNumber, RoomIndex};

impl Checker {
    /// Before it is sent for the first time: it has this file.
    pub fn attach(&mut self, number: MessageNumber, upload: Uuid) {
        if let Some(sent) = self.messages.get_mut(number.index()) {
            sent.upload = Some(upload);
        }
    }

    /// Somebody found this message: it is what it is everywhere else.
    pub fn hit(&mut self, room: RoomIndex, seq: u64, observed: Observed<'_>) {
        let content = self.identify(room, seq, observed);
        self.place(room, seq, content, "a search");
    }
}
