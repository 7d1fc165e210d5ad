//! What follows from a room's log: every message's state after each of its events. What was shown,
//! acknowledged and paged is compared with that.
//!
//! Invariant: a room of whose events one was seen by nobody (all members were away, and caught up by
//! the history) is not judged by states; it is counted.

#[cfg(test)]
mod tests;

use std::collections::{HashMap, HashSet};

use super::changes::{Asked, Change, EMOJIS, Fate, Shown, Want, What};
use super::verdict::RoomHistory;
use super::{Checker, Content, Kind, Outcome};
use crate::ids::{RoomIndex, Slot};
use crate::random::pair_mark;

/// A message and what happened to it.
#[derive(Debug)]
struct Folded {
    /// `None`: of somebody else.
    author: Option<Slot>,
    /// After each event, by its `seq`; the first is its creation.
    states: Vec<(u64, Shown)>,
    /// Reactions by now.
    held: Vec<(Slot, u8)>,
    /// Every reaction put or taken back.
    reacted: Vec<(u64, Slot, u8, bool)>,
    /// Its author is: it is a tombstone by that, as of the event that changed it last.
    is_erased: bool,
}

impl Folded {
    fn last(&self) -> Shown {
        self.states.last().map_or(Shown::FIRST, |(_, shown)| *shown)
    }

    /// The newest event at or before `seq`, and the state after it.
    fn at(&self, seq: u64) -> Option<(u64, Shown)> {
        let after = self.states.partition_point(|(at, _)| *at <= seq);
        self.states.get(after.checked_sub(1)?).copied()
    }

    /// As the store has it.
    fn stored(&self) -> Option<(u64, Shown)> {
        let (seq, state) = self.states.last().copied()?;
        let erased = Shown {
            is_deleted: true,
            counts: Shown::FIRST.counts,
            ..state
        };
        Some((seq, if self.is_erased { erased } else { state }))
    }

    /// A member is erased: their message, or their reactions to it.
    fn erase(&mut self, seq: u64, slot: Slot) {
        if self.author == Some(slot) {
            self.is_erased = true;
            self.held.clear();
            return;
        }
        let mut state = self.last();
        let before = self.held.len();
        for (_, emoji) in self.held.extract_if(.., |(by, _)| *by == slot) {
            let counted = &mut state.counts[usize::from(emoji)];
            *counted = counted.saturating_sub(1);
            self.reacted.push((seq, slot, emoji, false));
        }
        if self.held.len() < before {
            self.states.push((seq, state));
        }
    }

    fn held_at(&self, seq: u64, slot: Slot, emoji: u8) -> bool {
        let of = self.reacted.iter().rev();
        let mut of = of.filter(|(at, by, what, _)| *at <= seq && (*by, *what) == (slot, emoji));
        of.next().is_some_and(|(_, _, _, added)| *added)
    }
}

type Key = (u64, Option<Slot>, Want);

fn key(message_seq: u64, slot: Slot, want: Want) -> Key {
    match want {
        // Only its author edits a message: the revision says which edit it is.
        Want::Edit { revision, .. } => {
            let expected = None;
            (message_seq, None, Want::Edit { revision, expected })
        }
        Want::Delete | Want::React { .. } => (message_seq, Some(slot), want),
    }
}

impl Checker {
    /// Rooms that could not be judged by states in the last verdict.
    pub fn rooms_with_unseen_events(&self) -> u64 {
        self.unseen_rooms
    }

    pub(super) fn finish_changes(&mut self, histories: &[RoomHistory]) {
        let mut asked: Vec<Vec<usize>> = vec![Vec::new(); self.rooms.len()];
        for (place, change) in self.changes.iter().enumerate() {
            asked[change.room.index()].push(place);
            if change.outcome == Outcome::Open && change.attempts > 0 {
                self.findings.found(Kind::Unanswered, || {
                    format!("change {place} has no answer: {change:?}")
                });
            }
        }
        self.unseen_rooms = 0;
        let mut views = self.take_views();
        let nothing = RoomHistory::default();
        for (index, asked) in asked.iter().enumerate() {
            let room = RoomIndex(index as u32);
            let history = histories.get(index).unwrap_or(&nothing);
            let views = std::mem::take(&mut views[index]);
            self.finish_marks(room);
            let unseen = self.unseen(room, history.last_seq);
            let possible: u32 = asked
                .iter()
                .map(|place| self.changes[*place].possible())
                .sum();
            if unseen.len() > possible as usize {
                self.findings.found(Kind::HistoryGap, || {
                    format!("room {index}: nobody ever saw seq {:?}", unseen.first())
                });
            }
            if !unseen.is_empty() {
                self.unseen_rooms += 1;
                self.rooms[index].pages.clear();
                self.finish_unread(room, views, None);
                continue;
            }
            let folded = self.fold(room, asked);
            self.compare_shown(room, &folded);
            self.compare_acks(room, &folded, asked);
            self.compare_history(room, &folded, history);
            self.compare_pages(room, &folded);
            let alive = self.alive(&folded);
            self.finish_unread(room, views, alive.as_deref());
        }
    }

    /// Places of the log whose event nobody saw.
    fn unseen(&self, room: RoomIndex, last_seq: u64) -> Vec<u64> {
        let log = &self.rooms[room.index()];
        let end = log.known_seq.max(last_seq);
        // Far fewer are remembered than a nonsensical `seq` would claim.
        let end = end.min(log.base_seq + log.entries.len() as u64 + 1000);
        (log.base_seq + 1..=end)
            .filter(|seq| {
                let entry = log.entries.get((seq - log.base_seq - 1) as usize);
                let content = entry.and_then(|entry| entry.content);
                // A room's first event is its creation.
                content.is_none() && *seq > 1
            })
            .collect()
    }

    fn fold(&mut self, room: RoomIndex, asked: &[usize]) -> HashMap<u64, Folded> {
        let mut possible: HashMap<Key, u32> = HashMap::new();
        for place in asked {
            let asked = &self.changes[*place];
            if asked.fate == Fate::Done {
                *possible
                    .entry(key(asked.message_seq, asked.slot, asked.want))
                    .or_default() += asked.possible();
            }
        }
        let mut folded: HashMap<u64, Folded> = HashMap::new();
        let Self {
            rooms,
            messages,
            findings,
            ..
        } = self;
        let log = &rooms[room.index()];
        for (place, entry) in log.entries.iter().enumerate() {
            let seq = log.base_seq + 1 + place as u64;
            let author = match entry.content {
                None | Some(Content::Other) => continue,
                Some(Content::Erased(slot)) => {
                    for message in folded.values_mut() {
                        message.erase(seq, slot);
                    }
                    continue;
                }
                Some(Content::Stranger(_)) => None,
                Some(Content::Message(number)) => {
                    messages.get(number.index()).map(|sent| sent.slot)
                }
                Some(Content::Change(change)) => {
                    let words =
                        |what: &str| format!("room {} seq {seq}: {what}: {change:?}", room.0);
                    let Some(message) = folded.get_mut(&change.message_seq) else {
                        findings.found(Kind::InventedChange, || words("of no message"));
                        continue;
                    };
                    if message.last().is_deleted || message.is_erased {
                        findings.found(Kind::ChangedAfterDelete, || words("it was deleted"));
                    }
                    let want = apply(message, seq, change, |kind, what| {
                        findings.found(kind, || words(what));
                    });
                    let left = want.and_then(|(slot, want)| {
                        possible.get_mut(&key(change.message_seq, slot, want))
                    });
                    match left {
                        Some(left) if *left > 0 => *left -= 1,
                        _ => findings.found(Kind::InventedChange, || {
                            words("nobody asked for it, or not so often")
                        }),
                    }
                    continue;
                }
            };
            folded.insert(
                seq,
                Folded {
                    author,
                    states: vec![(seq, Shown::FIRST)],
                    held: Vec::new(),
                    reacted: Vec::new(),
                    is_erased: false,
                },
            );
        }
        folded
    }

    fn compare_shown(&mut self, room: RoomIndex, folded: &HashMap<u64, Folded>) {
        let log = &self.rooms[room.index()];
        for ((seq, changed_seq), shown) in &log.shown {
            let state = folded
                .get(seq)
                .and_then(|message| message.at(*changed_seq))
                .filter(|(at, _)| at == changed_seq)
                .map(|(_, state)| state);
            if state != Some(*shown) {
                self.findings.found(Kind::WrongState, || {
                    format!(
                        "room {} message {seq} as of {changed_seq}: shown {shown:?}, its events \
                         make {state:?}",
                        room.0
                    )
                });
            }
        }
    }

    fn compare_acks(&mut self, room: RoomIndex, folded: &HashMap<u64, Folded>, asked: &[usize]) {
        let mut claimed = HashSet::new();
        for place in asked {
            let asked = &self.changes[*place];
            let words = |what: &str| format!("room {} change {place}: {what}: {asked:?}", room.0);
            let message = folded.get(&asked.message_seq);
            let is_gone = |message: &Folded| message.last().is_deleted || message.is_erased;
            if asked.was_gone && !message.is_some_and(is_gone) {
                self.findings.found(Kind::UnexpectedRefusal, || {
                    words("gone, and the message is not deleted")
                });
            }
            let Some(ack) = asked.ack.filter(|_| asked.outcome == Outcome::Acked) else {
                continue;
            };
            let event = self.change_at(room, ack.seq);
            let is_there = event.is_some_and(|event| is_of(event, asked));
            if ack.changed && !(is_there && claimed.insert(ack.seq)) {
                self.findings.found(Kind::ChangeLost, || {
                    words(&format!("its place holds {event:?}, perhaps another's"))
                });
                continue;
            }
            let state = message.and_then(|message| message.at(ack.seq));
            let Some((_, state)) = state.filter(|(at, _)| *at == ack.seq) else {
                self.findings.found(Kind::AckLied, || {
                    words("no event of the message has this seq")
                });
                continue;
            };
            let holds = match asked.want {
                Want::Edit { revision, .. } => state.revision == revision,
                Want::Delete => state.is_deleted,
                Want::React { emoji, added } => message.is_some_and(|message| {
                    message.held_at(ack.seq, asked.slot, emoji) == added
                        || state.is_deleted && !added
                }),
            };
            // By then its author may have been erased.
            let holds = holds || !ack.changed && message.is_some_and(|message| message.is_erased);
            if !holds || state.revision != ack.revision {
                let kind = if ack.changed {
                    Kind::WrongState
                } else {
                    Kind::WrongChangedFlag
                };
                self.findings
                    .found(kind, || words(&format!("the message is {state:?}")));
            }
        }
    }

    fn compare_history(
        &mut self,
        room: RoomIndex,
        folded: &HashMap<u64, Folded>,
        history: &RoomHistory,
    ) {
        for (seq, changed_seq, shown) in &history.shown {
            let state = folded.get(seq).and_then(Folded::stored);
            if state != Some((*changed_seq, *shown)) && folded.contains_key(seq) {
                self.findings.found(Kind::WrongState, || {
                    format!(
                        "room {} message {seq}: stored {shown:?} as of {changed_seq}, its events \
                         make {state:?}",
                        room.0
                    )
                });
            }
        }
        for (seq, slot, mine) in &history.mine {
            let Some(message) = folded.get(seq) else {
                continue;
            };
            for emoji in 0..EMOJIS.len() as u8 {
                let is_mine = mine & 1 << emoji != 0;
                let is_held = message.held.contains(&(*slot, emoji));
                if is_mine != is_held {
                    self.findings.found(Kind::WrongState, || {
                        format!(
                            "room {} message {seq}, emoji {emoji} of member {}: mine {is_mine}, \
                             put {is_held}",
                            room.0, slot.0
                        )
                    });
                }
            }
        }
    }

    /// Every page held just what the room held at its snapshot.
    fn compare_pages(&mut self, room: RoomIndex, folded: &HashMap<u64, Folded>) {
        let log = &mut self.rooms[room.index()];
        let pages = std::mem::take(&mut log.pages);
        for page in pages {
            let mut mark = 0_u64;
            let mut count = 0_u32;
            // What a page goes by, the state of each message then.
            let known = log.base_seq + log.entries.len() as u64;
            for seq in page.from..=page.until.min(page.last_seq).min(known) {
                let is_erasure = |content: &Content| matches!(content, Content::Erased(_));
                let content = log.entries.get((seq - log.base_seq - 1) as usize);
                let content = content.and_then(|entry| entry.content);
                if page.is_by_change && content.as_ref().is_some_and(is_erasure) {
                    // Every message that lost a reaction by it, if nothing changed it since.
                    for (message_seq, message) in folded {
                        if message.at(page.last_seq).is_some_and(|(at, _)| at == seq) {
                            mark = mark.wrapping_add(pair_mark(*message_seq, seq));
                            count += 1;
                        }
                    }
                    continue;
                }
                let place = (seq - log.base_seq - 1) as usize;
                let message_seq = match log.entries.get(place).and_then(|entry| entry.content) {
                    Some(Content::Change(change)) if page.is_by_change => change.message_seq,
                    Some(Content::Message(_) | Content::Stranger(_)) => seq,
                    _ => continue,
                };
                let Some((changed_seq, _)) = folded
                    .get(&message_seq)
                    .and_then(|message| message.at(page.last_seq))
                else {
                    continue;
                };
                if page.is_by_change && changed_seq != seq {
                    continue;
                }
                mark = mark.wrapping_add(pair_mark(message_seq, changed_seq));
                count += 1;
            }
            if mark != page.mark {
                self.findings.found(Kind::HistoryGap, || {
                    format!("room {}: {count} messages belong into {page:?}", room.0)
                });
            }
        }
    }

    /// The messages that are not deleted; `None` if some are of authors that are not known.
    fn alive(&self, folded: &HashMap<u64, Folded>) -> Option<Vec<(u64, Option<Slot>)>> {
        let mut alive = Vec::new();
        for (seq, message) in folded {
            message.author?;
            if !message.last().is_deleted && !message.is_erased {
                alive.push((*seq, message.author));
            }
        }
        alive.sort_unstable();
        Some(alive)
    }
}

/// Takes an event to a message. Returns who must have asked for what.
fn apply(
    message: &mut Folded,
    seq: u64,
    change: Change,
    mut found: impl FnMut(Kind, &'static str),
) -> Option<(Slot, Want)> {
    let mut state = message.last();
    let asked = match change.what {
        What::Edited => {
            state.revision += 1;
            let revision = state.revision;
            let expected = None;
            message
                .author
                .map(|author| (author, Want::Edit { revision, expected }))
        }
        What::Deleted(by) => {
            state.is_deleted = true;
            state.counts = Shown::FIRST.counts;
            message.held.clear();
            by.map(|by| (by, Want::Delete))
        }
        What::Reacted {
            by: Some(by),
            emoji: Some(emoji),
            added,
            count,
        } => {
            let held = message.held.iter().position(|held| *held == (by, emoji));
            let counted = &mut state.counts[usize::from(emoji)];
            match held {
                None if added => {
                    message.held.push((by, emoji));
                    *counted += 1;
                }
                Some(held) if !added => {
                    message.held.swap_remove(held);
                    *counted = counted.saturating_sub(1);
                }
                _ => found(Kind::Miscounted, "it was so before"),
            }
            if count != u64::from(*counted) {
                found(Kind::Miscounted, "the count is another");
            }
            message.reacted.push((seq, by, emoji, added));
            Some((by, Want::React { emoji, added }))
        }
        What::Reacted { .. } | What::Else => None,
    };
    message.states.push((seq, state));
    asked
}

/// Whether an event is what was asked for.
fn is_of(event: Change, asked: &Asked) -> bool {
    let is_what = match (event.what, asked.want) {
        (What::Edited, Want::Edit { .. }) => true,
        (What::Deleted(by), Want::Delete) => by == Some(asked.slot),
        (
            What::Reacted {
                by, emoji, added, ..
            },
            Want::React {
                emoji: wanted,
                added: is_add,
            },
        ) => (by, emoji, added) == (Some(asked.slot), Some(wanted), is_add),
        _ => false,
    };
    is_what && event.message_seq == asked.message_seq
}
