//! The end of a run: what fresh readers found in the rooms against every ack and every delivery.

use super::{Checker, Content, Kind, Outcome, Shown};
use crate::ids::{MessageNumber, RoomIndex, Slot};

/// A room's history after the run's base, read by fresh connections to its end.
#[derive(Clone, Debug, Default)]
pub struct RoomHistory {
    pub last_seq: u64,
    /// Ordered by `seq`.
    pub contents: Vec<(u64, Content)>,
    /// In which state each message is, with the last event that changed it.
    pub shown: Vec<(u64, u64, Shown)>,
    /// Which reactions are those of the member who read the message.
    pub mine: Vec<(u64, Slot, u8)>,
}

impl Checker {
    /// Compares everything with the histories, one per room. All clients had their time to receive
    /// everything, so whoever is behind has lost it.
    pub fn finish(&mut self, histories: &[RoomHistory]) {
        for (index, history) in histories.iter().enumerate() {
            self.finish_room(RoomIndex(index as u32), history);
        }
        self.finish_messages(histories);
        self.finish_changes(histories);
        self.check_sender_order();
    }

    fn finish_room(&mut self, room: RoomIndex, history: &RoomHistory) {
        let log = &mut self.rooms[room.index()];
        let findings = &mut self.findings;
        if history.last_seq < log.known_seq {
            findings.found(Kind::DeliveredNotStored, || {
                format!(
                    "room {} ends at {}, clients know of {}",
                    room.0, history.last_seq, log.known_seq
                )
            });
        }
        for (place, entry) in log.entries.iter().enumerate() {
            let seq = log.base_seq + 1 + place as u64;
            let Some(content) = entry.content else {
                continue;
            };
            // An ack alone is compared message by message; an event that is no message need not
            // stand in the history.
            let is_message = matches!(content, Content::Message(_) | Content::Stranger(_));
            if entry.is_by_ack_only || !is_message {
                continue;
            }
            let found = find(history, seq);
            if found != Some(content) {
                findings.found(Kind::DeliveredNotStored, || {
                    format!(
                        "room {} seq {seq}: delivered {content:?}, stored {found:?}",
                        room.0
                    )
                });
            }
        }
        for (slot, cursor) in log.cursors.iter().enumerate() {
            if self.erasing.contains(&log.members[slot]) {
                continue;
            }
            let behind = history
                .last_seq
                .max(log.known_seq)
                .saturating_sub(cursor.position);
            let lost = cursor.lost() + behind;
            if lost > 0 {
                findings.found_many(Kind::LostDelivery, lost, || {
                    format!(
                        "room {} member {} ({:?}): {lost} events never came, position {} of {}",
                        room.0, slot, log.members[slot], cursor.position, history.last_seq
                    )
                });
            }
        }
    }

    fn finish_messages(&mut self, histories: &[RoomHistory]) {
        for (index, sent) in self.messages.iter().enumerate() {
            let number = MessageNumber(index as u32);
            let place = |seq: u64| format!("message {index} in room {} seq {seq}", sent.room.0);
            match sent.outcome {
                Outcome::Open if sent.attempts > 0 => self
                    .findings
                    .found(Kind::Unanswered, || format!("{}: no answer", place(0))),
                Outcome::Open | Outcome::Refused | Outcome::Void => {}
                Outcome::Acked => {
                    let stored = histories
                        .get(sent.room.index())
                        .and_then(|history| find(history, sent.acked_seq));
                    if stored == Some(Content::Message(number)) {
                        continue;
                    }
                    let elsewhere = sent.seen_seq;
                    if elsewhere > 0 && elsewhere != sent.acked_seq {
                        self.findings.found(Kind::AckLied, || {
                            format!("{}: stored at {elsewhere}", place(sent.acked_seq))
                        });
                    } else {
                        self.findings.found(Kind::AckedLost, || {
                            format!("{}: the history has {stored:?}", place(sent.acked_seq))
                        });
                    }
                }
            }
        }
    }

    /// Sends of one connection to one room, each sent once, stand in the order sent.
    fn check_sender_order(&mut self) {
        let mut latest: Vec<Vec<(u32, u64, u32)>> = self
            .rooms
            .iter()
            .map(|log| vec![(0, 0, 0); log.members.len()])
            .collect();
        for (index, sent) in self.messages.iter().enumerate() {
            let seq = sent.acked_seq.max(sent.seen_seq);
            if sent.attempts != 1 || seq == 0 {
                continue;
            }
            let Slot(slot) = sent.slot;
            let before = &mut latest[sent.room.index()][slot as usize];
            if before.0 == sent.connection && before.1 > seq {
                let (_, earlier_seq, earlier) = *before;
                self.findings.found(Kind::SenderOrder, || {
                    format!(
                        "room {}: message {earlier} has seq {earlier_seq}, message {index}, sent \
                         after it, {seq}",
                        sent.room.0
                    )
                });
            }
            *before = (sent.connection, seq, index as u32);
        }
    }
}

fn find(history: &RoomHistory, seq: u64) -> Option<Content> {
    history
        .contents
        .binary_search_by_key(&seq, |(seq, _)| *seq)
        .ok()
        .map(|place| history.contents[place].1)
}
