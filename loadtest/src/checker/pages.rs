//! Pages of the history: what can be said of each by itself is said at once; what it held is kept in
//! little, and compared when all events are known ([`super::fold`]).

use super::{Checker, Content, Kind, Observed, Shown};
use crate::ids::{RoomIndex, Slot};
use crate::random::pair_mark;

/// One page of `history.get after_seq`.
pub struct Page<'a> {
    pub after_seq: u64,
    pub messages: Vec<(u64, Observed<'a>)>,
    pub has_more: bool,
    pub last_seq: u64,
    pub next_after_seq: Option<u64>,
}

/// A message in a page.
#[derive(Clone, Copy, Debug)]
pub struct Paged {
    pub seq: u64,
    pub content: Content,
    pub changed_seq: u64,
    pub shown: Shown,
    pub mine: Option<u8>,
}

/// What a page goes by, with `seq` excluded where one is named.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PageBy {
    Newest,
    Before(u64),
    After(u64),
}

/// What a page of the history held, in little: compared when all events are known.
#[derive(Clone, Copy, Debug)]
pub(super) struct PageSeen {
    pub(super) from: u64,
    pub(super) until: u64,
    /// By `changed_seq`, else by `seq`.
    pub(super) is_by_change: bool,
    /// Of the page's snapshot.
    pub(super) last_seq: u64,
    /// The sum of marks of all messages in it, each with its `changed_seq`.
    pub(super) mark: u64,
}

impl Checker {
    /// A page that a member fetched to catch up.
    pub fn page(&mut self, room: RoomIndex, slot: Slot, page: &Page<'_>) {
        let (_, next_after_seq) = self.check_page(room, page);
        self.rooms[room.index()].cursors[slot.index()].page(next_after_seq, !page.has_more);
    }

    /// Reads a page's content and checks that it joins on to `after_seq`. Returns the content, in
    /// its order, and where the next page begins.
    pub fn check_page(&mut self, room: RoomIndex, page: &Page<'_>) -> (Vec<Paged>, u64) {
        let (contents, mark) = self.read_page(room, page, PageBy::After(page.after_seq));
        let highest = contents.iter().map(|paged| paged.changed_seq).max();
        let highest = highest.unwrap_or(0).max(page.after_seq);
        let next = page.next_after_seq.unwrap_or(highest);
        let place = || format!("room {} page after {}", room.0, page.after_seq);
        if page.next_after_seq.is_none() || next < highest {
            self.findings.found(Kind::HistoryGap, || {
                format!(
                    "{}: next_after_seq {:?}, highest {highest}",
                    place(),
                    page.next_after_seq
                )
            });
        }
        if page.has_more && next <= page.after_seq {
            self.findings.found(Kind::HistoryGap, || {
                format!("{}: does not advance", place())
            });
        }
        if !page.has_more && next != page.last_seq {
            self.findings.found(Kind::HistoryGap, || {
                format!(
                    "{}: ends at {next}, not at last_seq {}",
                    place(),
                    page.last_seq
                )
            });
        }
        let log = &mut self.rooms[room.index()];
        let after_seq = page.after_seq.max(log.base_seq);
        log.pages
            .push(PageSeen::by_change(after_seq, next, page.last_seq, mark));
        (contents, next)
    }

    /// A page by `seq`: the newest messages, or those before one.
    pub fn check_range(&mut self, room: RoomIndex, page: &Page<'_>, by: PageBy) {
        let (contents, mark) = self.read_page(room, page, by);
        let base_seq = self.rooms[room.index()].base_seq;
        let from = match contents.first() {
            Some(first) if page.has_more => first.seq,
            None if page.has_more => {
                self.findings.found(Kind::HistoryGap, || {
                    format!("room {}: an empty page {by:?}, and has_more", room.0)
                });
                return;
            }
            _ => 0,
        };
        let until = match by {
            PageBy::Before(seq) => seq.saturating_sub(1),
            PageBy::Newest | PageBy::After(_) => page.last_seq,
        };
        self.rooms[room.index()].pages.push(PageSeen {
            from: from.max(base_seq + 1),
            until,
            is_by_change: false,
            last_seq: page.last_seq,
            mark,
        });
    }

    /// Reads what a page holds, in its order. Returns also the sum of what it holds of this run.
    fn read_page(&mut self, room: RoomIndex, page: &Page<'_>, by: PageBy) -> (Vec<Paged>, u64) {
        let base_seq = self.rooms[room.index()].base_seq;
        let mut contents = Vec::with_capacity(page.messages.len());
        let mut mark = 0_u64;
        let mut before = match by {
            PageBy::After(seq) => seq,
            PageBy::Newest | PageBy::Before(_) => 0,
        };
        for (seq, observed) in &page.messages {
            let seq = *seq;
            let changed_seq = observed.changed_seq.max(seq);
            let content = self.identify(room, seq, *observed);
            self.place(room, seq, content, "the history");
            let place = match by {
                PageBy::After(_) => changed_seq,
                PageBy::Newest | PageBy::Before(_) => seq,
            };
            let is_beyond = matches!(by, PageBy::Before(end) if place >= end);
            // One erasure may have changed several.
            let may_be_same = matches!(by, PageBy::After(_)) && !self.erasing.is_empty();
            let is_back = match may_be_same {
                true => place < before,
                false => place <= before,
            };
            if is_back || is_beyond || changed_seq > page.last_seq {
                self.findings.found(Kind::HistoryGap, || {
                    format!(
                        "room {}: {seq} (as of {changed_seq}) after {before} in a page {by:?} of \
                         last_seq {}",
                        room.0, page.last_seq
                    )
                });
            }
            before = before.max(place);
            let is_message = !matches!(content, Content::Other | Content::Erased(_));
            if is_message && seq > base_seq {
                mark = mark.wrapping_add(pair_mark(seq, changed_seq));
            }
            contents.push(Paged {
                seq,
                content,
                changed_seq,
                shown: observed.shown,
                mine: observed.mine,
            });
        }
        let log = &mut self.rooms[room.index()];
        log.known_seq = log.known_seq.max(page.last_seq);
        (contents, mark)
    }
}

impl PageSeen {
    /// A page by `after_seq`: what changed in `(after_seq, next]`.
    pub(super) fn by_change(after_seq: u64, next: u64, last_seq: u64, mark: u64) -> Self {
        Self {
            from: after_seq + 1,
            until: next,
            is_by_change: true,
            last_seq,
            mark,
        }
    }
}
