//! What a frame or a page shows at a place: whose message it is, and whether it is what everybody else sees there.

use super::{Checker, Content, Kind, Observed, Outcome};
use crate::ids::RoomIndex;
use crate::random::fingerprint;

impl Checker {
    /// Whose message this is. What does not match what was sent is found here.
    pub(super) fn identify(
        &mut self,
        room: RoomIndex,
        seq: u64,
        observed: Observed<'_>,
    ) -> Content {
        if let Some((user, stood_as)) = observed.erased {
            return self.erased(room, seq, user, stood_as);
        }
        let Some(id) = observed.client_msg_id else {
            return Content::Other;
        };
        if observed.kind == "system" {
            return Content::Other;
        }
        let stranger = || {
            let mut parts = id.as_bytes().to_vec();
            parts.extend_from_slice(observed.sender_id.unwrap_or_default().as_bytes());
            if observed.changed_seq <= seq {
                parts.extend_from_slice(observed.text.as_bytes());
            }
            Content::Stranger(fingerprint(&parts))
        };
        let Some(number) = self.ids.number(id) else {
            return stranger();
        };
        let ids = self.ids;
        let sent = self.messages.get(number.index()).filter(|sent| {
            sent.room == room && sent.attempts > 0 && ids.id(number, sent.due_us) == id
        });
        let Some(sent) = sent else {
            self.findings.found(Kind::InventedMessage, || {
                format!("room {} seq {seq}: {id} was never sent there", room.0)
            });
            return stranger();
        };
        let (slot, is_gone) = (sent.slot, self.is_erasing(room, sent.slot));
        if is_gone && observed.shown.is_deleted && self.is_nobody(room, slot, &observed) {
            return Content::Message(number);
        }
        let Some(sent) = self.messages.get(number.index()) else {
            return stranger();
        };
        let sender = self.rooms[room.index()].members[sent.slot.index()];
        if observed.sender_id != Some(self.users[sender.index()]) {
            self.findings.found(Kind::AlteredMessage, || {
                format!("room {} seq {seq}: sender {:?}", room.0, observed.sender_id)
            });
        }
        let shown = observed.shown;
        let text = match shown.is_deleted {
            true => String::new(),
            false => sent.text(number, shown.revision),
        };
        if observed.text != text {
            self.findings.found(Kind::AlteredMessage, || {
                format!(
                    "room {} seq {seq}: at {shown:?} it is {text:?}, got {:?}",
                    room.0, observed.text
                )
            });
        }
        let mention = sent.mention.filter(|_| !shown.is_deleted);
        // Who is erased is named no longer, from some time on.
        let is_named = !observed.mentions.is_empty();
        let mention = mention.filter(|slot| is_named || !self.is_erasing(room, *slot));
        let mention = mention.map(|slot| {
            let client = self.rooms[room.index()].members[slot.index()];
            self.users[client.index()].to_string()
        });
        if observed.reply_to_seq.unwrap_or(0) != sent.reply_to_seq
            || !observed.mentions.iter().eq(mention.iter())
            || observed.file != sent.upload.filter(|_| !shown.is_deleted)
        {
            self.findings.found(Kind::AlteredMessage, || {
                format!(
                    "room {} seq {seq}: answers {} and names {mention:?}, got {observed:?}",
                    room.0, sent.reply_to_seq
                )
            });
        }
        if shown.revision == 0 || shown.revision > sent.asked_revision {
            self.findings.found(Kind::InventedChange, || {
                format!(
                    "room {} message {seq}: {shown:?}, edits asked for make revision {}",
                    room.0, sent.asked_revision
                )
            });
        }
        let changed_seq = observed.changed_seq.max(seq);
        self.shown(room, seq, changed_seq, shown, "somebody");
        Content::Message(number)
    }

    /// Compares with what others saw at this place, and with where else this message was seen.
    pub(super) fn place(&mut self, room: RoomIndex, seq: u64, content: Content, source: &str) {
        let findings = &mut self.findings;
        let log = &mut self.rooms[room.index()];
        let Some(entry) = log.entry(seq) else {
            if seq > log.base_seq {
                findings.found(Kind::BadFrame, || {
                    format!("room {}: impossible seq {seq}", room.0)
                });
            }
            return;
        };
        match entry.content {
            None => entry.content = Some(content),
            Some(known) if known == content => {}
            Some(known) => {
                let kind = if entry.is_by_ack_only {
                    Kind::AckLied
                } else {
                    Kind::DifferentContent
                };
                findings.found(kind, || {
                    format!(
                        "room {} seq {seq}: {source} has {content:?}, before {known:?}",
                        room.0
                    )
                });
                if entry.is_by_ack_only {
                    entry.content = Some(content);
                }
            }
        }
        entry.is_by_ack_only = false;
        let Content::Message(number) = content else {
            return;
        };
        let Some(sent) = self.messages.get_mut(number.index()) else {
            return;
        };
        if sent.outcome == Outcome::Refused && sent.seen_seq == 0 {
            findings.found(Kind::RefusedStored, || {
                format!("room {} seq {seq}: message {}", room.0, number.0)
            });
        }
        let author = &mut log.marks[sent.slot.index()];
        author.own_seq = author.own_seq.max(seq);
        if sent.seen_seq == 0 {
            sent.seen_seq = seq;
            if sent.acked_seq > 0 && sent.acked_seq != seq {
                findings.found(Kind::AckLied, || {
                    format!(
                        "message {} in room {}: acked as seq {}, {source} has it as {seq}",
                        number.0, room.0, sent.acked_seq
                    )
                });
            }
        } else if sent.seen_seq != seq {
            findings.found(Kind::DoubledMessage, || {
                format!(
                    "message {} in room {}: seq {} and seq {seq} ({source})",
                    number.0, room.0, sent.seen_seq
                )
            });
        }
    }
}
