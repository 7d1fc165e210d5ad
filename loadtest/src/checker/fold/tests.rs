//! The checker against made-up runs of the mixed load: clean ones stay without a finding, and each
//! anomaly, put in at a random place, is found under its name.

use super::super::*;
use crate::random::{Random, fingerprint};

const MEMBERS: u32 = 3;
const ROOM: RoomIndex = RoomIndex(0);

/// A message as somebody is shown it.
#[derive(Clone, Copy, Debug, PartialEq)]
struct View {
    seq: u64,
    number: u32,
    changed_seq: u64,
    shown: Shown,
    /// A deleted message shows its text all the same.
    has_text: bool,
}

#[derive(Clone, Copy, Debug)]
enum Told {
    Created(View),
    Changed(Change, Option<View>),
}

#[derive(Clone, Debug)]
enum Step {
    Send(u32),
    SendAck(u32, u64),
    Ask(usize),
    Again(usize),
    Ack(usize, Ack),
    Refused(usize, &'static str),
    Event(Slot, u64, Told),
    Page {
        by: PageBy,
        views: Vec<View>,
        has_more: bool,
        last_seq: u64,
    },
    Say(Slot, Mark),
    /// Who is told, of whom, and what.
    Receipt(Slot, Slot, Mark),
}

#[derive(Clone, Debug)]
struct Wish {
    slot: Slot,
    number: u32,
    seq: u64,
    want: Want,
    fate: Fate,
}

#[derive(Clone, Default)]
struct Message {
    view: Option<View>,
    author: u32,
    reactions: Vec<(Slot, u8)>,
}

#[derive(Clone, Default)]
struct Run {
    senders: Vec<Slot>,
    wishes: Vec<Wish>,
    steps: Vec<Step>,
    stored: Vec<View>,
    last_seq: u64,
    got: Vec<Mark>,
    unread: Vec<(u64, u64)>,
}

struct Maker {
    random: Random,
    run: Run,
    log: Vec<Told>,
    messages: Vec<Message>,
    streams: [u64; MEMBERS as usize],
    said: [Mark; MEMBERS as usize],
    own: [u64; MEMBERS as usize],
}

fn make_run(seed: u64) -> Run {
    let mut maker = Maker {
        random: Random::new(seed),
        run: Run::default(),
        log: Vec::new(),
        messages: Vec::new(),
        streams: [0; 3],
        said: [Mark::default(); 3],
        own: [0; 3],
    };
    for _ in 0..160 {
        match maker.random.below(12) {
            0..=2 => maker.send(),
            3..=6 => maker.change(),
            7 => maker.page(),
            8 => maker.receipt(),
            _ => {
                let slot = maker.slot();
                maker.deliver(slot);
            }
        }
    }
    for slot in 0..MEMBERS {
        while maker.streams[slot as usize] < maker.log.len() as u64 {
            maker.deliver(Slot(slot));
        }
    }
    maker.finish()
}

impl Maker {
    fn slot(&mut self) -> Slot {
        Slot(self.random.below(u64::from(MEMBERS)) as u32)
    }

    fn send(&mut self) {
        let slot = self.slot();
        let number = self.messages.len() as u32;
        let seq = self.log.len() as u64 + 1;
        let view = View {
            seq,
            number,
            changed_seq: seq,
            shown: Shown::FIRST,
            has_text: true,
        };
        self.run.senders.push(slot);
        self.messages.push(Message {
            view: Some(view),
            author: slot.0,
            reactions: Vec::new(),
        });
        self.own[slot.index()] = seq;
        self.log.push(Told::Created(view));
        self.run.steps.push(Step::Send(number));
        self.run.steps.push(Step::SendAck(number, seq));
    }

    fn change(&mut self) {
        if self.messages.is_empty() {
            return;
        }
        let number = self.random.below(self.messages.len() as u64) as usize;
        let author = Slot(self.messages[number].author);
        let view = self.messages[number].view.unwrap();
        let revision = view.shown.revision;
        let emoji = self.random.below(2) as u8;
        let (slot, want, fate) = match self.random.below(10) {
            0 => {
                let other = Slot((author.0 + 1) % MEMBERS);
                let (revision, expected) = (revision + 1, None);
                (other, Want::Edit { revision, expected }, Fate::Forbidden)
            }
            1 => {
                let (revision, expected) = (revision + 1, Some(revision + 5));
                (author, Want::Edit { revision, expected }, Fate::Conflict)
            }
            2..=4 => {
                let (revision, expected) = (revision + 1, Some(revision));
                (author, Want::Edit { revision, expected }, Fate::Done)
            }
            5 => (Slot(0), Want::Delete, Fate::Done),
            6 | 7 => (self.slot(), Want::React { emoji, added: true }, Fate::Done),
            _ => {
                let added = false;
                (self.slot(), Want::React { emoji, added }, Fate::Done)
            }
        };
        let wish = self.run.wishes.len();
        self.run.wishes.push(Wish {
            slot,
            number: number as u32,
            seq: view.seq,
            want,
            fate,
        });
        self.run.steps.push(Step::Ask(wish));
        let is_edit_or_add = matches!(want, Want::Edit { .. } | Want::React { added: true, .. });
        let refusal = match fate {
            Fate::Forbidden => Some("forbidden"),
            _ if view.shown.is_deleted && is_edit_or_add => Some("gone"),
            Fate::Conflict => Some("revision_conflict"),
            Fate::Done => None,
        };
        if let Some(code) = refusal {
            self.run.steps.push(Step::Refused(wish, code));
            return;
        }
        let mut changed = self.apply(number, slot, want);
        if self.random.below(4) == 0 {
            // Its answer was lost; the retry finds it done.
            self.run.steps.push(Step::Again(wish));
            changed = false;
        }
        let view = self.messages[number].view.unwrap();
        let ack = Ack {
            seq: view.changed_seq,
            changed,
            revision: view.shown.revision,
        };
        self.run.steps.push(Step::Ack(wish, ack));
    }

    /// Returns whether it changed anything.
    fn apply(&mut self, number: usize, slot: Slot, want: Want) -> bool {
        let message = &mut self.messages[number];
        let view = message.view.as_mut().unwrap();
        let seq = self.log.len() as u64 + 1;
        let what = match want {
            Want::Edit { .. } => {
                view.shown.revision += 1;
                What::Edited
            }
            Want::Delete if view.shown.is_deleted => return false,
            Want::Delete => {
                view.shown.is_deleted = true;
                view.has_text = false;
                view.shown.counts = Shown::FIRST.counts;
                message.reactions.clear();
                What::Deleted(Some(slot))
            }
            Want::React { emoji, added } => {
                let held = message.reactions.iter().position(|of| *of == (slot, emoji));
                let counted = &mut view.shown.counts[usize::from(emoji)];
                match (held, added) {
                    (None, true) => {
                        message.reactions.push((slot, emoji));
                        *counted += 1;
                    }
                    (Some(held), false) => {
                        message.reactions.remove(held);
                        *counted -= 1;
                    }
                    _ => return false,
                }
                What::Reacted {
                    by: Some(slot),
                    emoji: Some(emoji),
                    added,
                    count: u64::from(*counted),
                }
            }
        };
        view.changed_seq = seq;
        let change = Change {
            message_seq: view.seq,
            what,
        };
        let shown = (what == What::Edited).then_some(*view);
        self.log.push(Told::Changed(change, shown));
        true
    }

    fn deliver(&mut self, slot: Slot) {
        let at = self.streams[slot.index()];
        let Some(told) = self.log.get(at as usize).copied() else {
            return;
        };
        self.streams[slot.index()] = at + 1;
        // Told again from the store, a message is as it is by now.
        let is_again = self.random.below(5) == 0;
        let now = |view: View| self.messages[view.number as usize].view.unwrap();
        let told = match told {
            Told::Created(view) if is_again => Told::Created(now(view)),
            Told::Changed(change, Some(view)) if is_again => Told::Changed(change, Some(now(view))),
            told => told,
        };
        self.run.steps.push(Step::Event(slot, at + 1, told));
    }

    fn page(&mut self) {
        let last_seq = self.log.len() as u64;
        let known = |message: &Message| message.view.unwrap();
        let mut views: Vec<View> = self.messages.iter().map(known).collect();
        let seq = self.random.below(last_seq + 1);
        let by = match self.random.below(3) {
            0 => PageBy::Newest,
            1 => PageBy::Before(seq + 1),
            _ => PageBy::After(seq),
        };
        let limit = 5;
        let has_more;
        match by {
            PageBy::After(seq) => {
                views.retain(|view| view.changed_seq > seq);
                views.sort_by_key(|view| view.changed_seq);
                has_more = views.len() > limit;
                views.truncate(limit);
            }
            PageBy::Newest | PageBy::Before(_) => {
                if let PageBy::Before(seq) = by {
                    views.retain(|view| view.seq < seq);
                }
                has_more = views.len() > limit;
                views.drain(..views.len().saturating_sub(limit));
            }
        }
        self.run.steps.push(Step::Page {
            by,
            views,
            has_more,
            last_seq,
        });
    }

    fn receipt(&mut self) {
        let slot = self.slot();
        let seq = self.streams[slot.index()];
        let mark = match self.random.below(2) {
            0 => Mark {
                read: seq,
                delivered: seq,
            },
            _ => Mark {
                read: 0,
                delivered: seq,
            },
        };
        self.run.steps.push(Step::Say(slot, mark));
        let said = &mut self.said[slot.index()];
        said.read = said.read.max(mark.read);
        said.delivered = said.delivered.max(mark.delivered);
        let own = self.own[slot.index()];
        let told = Mark {
            read: said.read.max(own),
            delivered: said.delivered.max(own),
        };
        for listener in (0..MEMBERS).map(Slot).filter(|listener| *listener != slot) {
            self.run.steps.push(Step::Receipt(listener, slot, told));
        }
    }

    fn finish(mut self) -> Run {
        self.run.last_seq = self.log.len() as u64;
        self.run.stored = self
            .messages
            .iter()
            .map(|message| message.view.unwrap())
            .collect();
        for slot in 0..MEMBERS {
            let (said, own) = (self.said[slot as usize], self.own[slot as usize]);
            let read = said.read.max(own);
            self.run.got.push(Mark {
                read,
                delivered: said.delivered.max(own),
            });
            let is_unread = |message: &&Message| {
                let view = message.view.unwrap();
                view.seq > read && message.author != slot && !view.shown.is_deleted
            };
            let unread = self.messages.iter().filter(is_unread).count() as u64;
            self.run.unread.push((read, unread));
        }
        self.run
    }
}

fn with_view<R>(
    checker: &Checker,
    run: &Run,
    view: View,
    use_it: impl FnOnce(Observed<'_>) -> R,
) -> R {
    let number = MessageNumber(view.number);
    let text = match view.has_text {
        true => checker.text_at(number, view.shown.revision),
        false => String::new(),
    };
    let sender = ClientIndex(run.senders[view.number as usize].0);
    use_it(Observed {
        sender_id: Some(identity::user_id(sender)),
        client_msg_id: Some(checker.ids.id(number, 1_000_000 + u64::from(view.number))),
        kind: "text",
        text: &text,
        changed_seq: view.changed_seq,
        shown: view.shown,
        ..Observed::default()
    })
}

fn play(run: &Run) -> Checker {
    let members: Vec<ClientIndex> = (0..MEMBERS).map(ClientIndex).collect();
    let mut checker = Checker::new(MessageIds::new(3), MEMBERS as usize, &[members]);
    checker.expect_receipts();
    for slot in 0..MEMBERS {
        checker.joined(ROOM, Slot(slot), 0);
    }
    for (number, slot) in run.senders.iter().enumerate() {
        checker.add_message(ROOM, *slot, 1_000_000 + number as u64, 40);
    }
    let mut numbers = vec![None; run.wishes.len()];
    for step in &run.steps {
        play_step(&mut checker, run, &mut numbers, step);
    }
    for (slot, (mark, (read_seq, unread))) in run.got.iter().zip(&run.unread).enumerate() {
        let slot = Slot(slot as u32);
        checker.got_mark(ROOM, slot, *mark, run.last_seq);
        checker.own_view((ROOM, slot), *read_seq, *unread, "room.get");
    }
    let content = |view: &View| (view.seq, Content::Message(MessageNumber(view.number)));
    let shown = |view: &View| (view.seq, view.changed_seq, view.shown);
    checker.finish(&[RoomHistory {
        last_seq: run.last_seq,
        contents: run.stored.iter().map(content).collect(),
        shown: run.stored.iter().map(shown).collect(),
        mine: Vec::new(),
    }]);
    checker
}

fn play_step(
    checker: &mut Checker,
    run: &Run,
    numbers: &mut [Option<crate::ids::ChangeNumber>],
    step: &Step,
) {
    match step {
        Step::Send(number) => checker.attempted(MessageNumber(*number), 1),
        Step::SendAck(number, seq) => {
            let client = ClientIndex(run.senders[*number as usize].0);
            let id = MessageNumber(*number);
            let client_msg_id = checker.ids.id(id, 1_000_000 + u64::from(*number));
            checker.acked(client, id, client_msg_id, Some(ROOM), *seq, false);
        }
        Step::Ask(wish) => {
            let of = &run.wishes[*wish];
            let message = (MessageNumber(of.number), of.seq);
            let number = checker.add_change((ROOM, of.slot), message, of.want, of.fate, 1);
            checker.change_attempted(number);
            numbers[*wish] = Some(number);
        }
        Step::Again(wish) => {
            checker.change_uncertain(numbers[*wish].unwrap());
            checker.change_attempted(numbers[*wish].unwrap());
        }
        Step::Ack(wish, ack) => {
            let of = &run.wishes[*wish];
            let client = ClientIndex(of.slot.0);
            checker.change_acked(client, numbers[*wish].unwrap(), Some(ROOM), of.seq, *ack);
        }
        Step::Refused(wish, code) => checker.change_refused(numbers[*wish].unwrap(), code),
        Step::Event(slot, seq, told) => {
            let mark = fingerprint(format!("{seq} {told:?}").as_bytes());
            if !checker.event(ROOM, *slot, *seq, mark).needs_content {
                return;
            }
            let ts = format!("2026-01-01T00:00:00.{seq:03}Z");
            match told {
                Told::Created(view) => {
                    let mut copy = checker.clone();
                    with_view(checker, run, *view, |observed| {
                        copy.content(ROOM, *seq, mark, &ts, Some(observed));
                    });
                    *checker = copy;
                }
                Told::Changed(change, None) => {
                    checker.changed(ROOM, *seq, mark, &ts, (*change, None));
                }
                Told::Changed(change, Some(view)) => {
                    let mut copy = checker.clone();
                    with_view(checker, run, *view, |observed| {
                        copy.changed(ROOM, *seq, mark, &ts, (*change, Some(observed)));
                    });
                    *checker = copy;
                }
            }
        }
        Step::Page {
            by,
            views,
            has_more,
            last_seq,
        } => play_page(checker, run, *by, views, (*has_more, *last_seq)),
        Step::Say(slot, mark) => checker.say_mark(ROOM, *slot, *mark),
        Step::Receipt(listener, slot, mark) => {
            checker.receipt((ClientIndex(listener.0), 1), ROOM, *slot, *mark);
        }
    }
}

fn play_page(
    checker: &mut Checker,
    run: &Run,
    by: PageBy,
    views: &[View],
    (has_more, last_seq): (bool, u64),
) {
    let text = |view: &View| match view.has_text {
        true => checker.text_at(MessageNumber(view.number), view.shown.revision),
        false => String::new(),
    };
    let texts: Vec<String> = views.iter().map(text).collect();
    let copy = checker.clone();
    let messages = views.iter().zip(&texts).map(|(view, text)| {
        let observed = with_view(&copy, run, *view, |observed| Observed {
            text: "",
            ..Observed {
                sender_id: observed.sender_id,
                client_msg_id: observed.client_msg_id,
                kind: "text",
                changed_seq: observed.changed_seq,
                shown: observed.shown,
                ..Observed::default()
            }
        });
        (view.seq, Observed { text, ..observed })
    });
    let next = views.last().map_or(last_seq, |view| view.changed_seq);
    let page = Page {
        after_seq: match by {
            PageBy::After(seq) => seq,
            PageBy::Newest | PageBy::Before(_) => 0,
        },
        messages: messages.collect(),
        has_more,
        last_seq,
        next_after_seq: Some(if has_more { next } else { last_seq }),
    };
    match by {
        PageBy::After(_) => {
            checker.check_page(ROOM, &page);
        }
        by => checker.check_range(ROOM, &page, by),
    }
}

#[test]
fn a_clean_run_has_no_finding() {
    let mut unread = 0;
    for seed in 0..600 {
        let checker = play(&make_run(seed));
        let findings = &checker.findings;
        assert!(
            findings.is_clean(),
            "seed {seed}: {:#?}",
            findings.examples()
        );
        assert_eq!(checker.rooms_with_unseen_events(), 0);
        unread += checker.unread_compared();
    }
    assert_eq!(unread, 600 * u64::from(MEMBERS));
}

type Inject = fn(&mut Run, &mut Random) -> Option<()>;

/// A place among the steps.
fn place(run: &Run, random: &mut Random, wanted: impl Fn(&Step) -> bool) -> Option<usize> {
    let places: Vec<usize> = (0..run.steps.len())
        .filter(|place| wanted(&run.steps[*place]))
        .collect();
    let place = random.below(places.len() as u64) as usize;
    places.get(place).copied()
}

fn stored(run: &Run, random: &mut Random, wanted: impl Fn(&View) -> bool) -> Option<usize> {
    let places: Vec<usize> = (0..run.stored.len())
        .filter(|place| wanted(&run.stored[*place]))
        .collect();
    places
        .get(random.below(places.len() as u64) as usize)
        .copied()
}

/// Every copy of the event at a place.
fn everywhere(run: &mut Run, at: u64, mut alter: impl FnMut(&mut Told)) {
    for step in &mut run.steps {
        if let Step::Event(_, seq, told) = step
            && *seq == at
        {
            alter(told);
        }
    }
}

fn event_of(
    run: &Run,
    random: &mut Random,
    wanted: impl Fn(&Change) -> bool,
) -> Option<(usize, u64)> {
    let is_wanted =
        |step: &Step| matches!(step, Step::Event(_, _, Told::Changed(change, _)) if wanted(change));
    let place = place(run, random, is_wanted)?;
    match run.steps[place] {
        Step::Event(_, seq, _) => Some((place, seq)),
        _ => None,
    }
}

fn is_reaction(change: &Change) -> bool {
    matches!(change.what, What::Reacted { .. })
}

fn acked_change(run: &Run, random: &mut Random) -> Option<usize> {
    place(
        run,
        random,
        |step| matches!(step, Step::Ack(_, ack) if ack.changed),
    )
}

fn lose_an_acked_change(run: &mut Run, random: &mut Random) -> Option<()> {
    let place = acked_change(run, random)?;
    let last_seq = run.last_seq;
    if let Step::Ack(_, ack) = &mut run.steps[place] {
        ack.seq = 1 + (ack.seq + random.below(last_seq - 1)) % last_seq;
    }
    Some(())
}

fn store_no_edit(run: &mut Run, random: &mut Random) -> Option<()> {
    let place = stored(run, random, |view| view.shown.revision > 1)?;
    run.stored[place].shown.revision -= 1;
    Some(())
}

fn edit_twice(run: &mut Run, random: &mut Random) -> Option<()> {
    let (_, seq) = event_of(run, random, |change| change.what == What::Edited)?;
    everywhere(run, seq, |told| {
        if let Told::Changed(_, Some(view)) = told {
            view.shown.revision += 1;
        }
    });
    Some(())
}

fn miscount(told: &mut Told) {
    if let Told::Changed(change, _) = told
        && let What::Reacted { count, .. } = &mut change.what
    {
        *count += 1;
    }
}

fn miscount_for_all(run: &mut Run, random: &mut Random) -> Option<()> {
    let (_, seq) = event_of(run, random, is_reaction)?;
    everywhere(run, seq, miscount);
    Some(())
}

fn miscount_for_one(run: &mut Run, random: &mut Random) -> Option<()> {
    let (place, _) = event_of(run, random, is_reaction)?;
    if let Step::Event(_, _, told) = &mut run.steps[place] {
        miscount(told);
    }
    Some(())
}

fn store_another_count(run: &mut Run, random: &mut Random) -> Option<()> {
    let place = stored(run, random, |_| true)?;
    run.stored[place].shown.counts[0] += 1;
    Some(())
}

fn page_with_a_deleted_text(run: &mut Run, random: &mut Random) -> Option<()> {
    let is_deleted = |view: &View| view.shown.is_deleted;
    let place = place(
        run,
        random,
        |step| matches!(step, Step::Page { views, .. } if views.iter().any(is_deleted)),
    )?;
    if let Step::Page { views, .. } = &mut run.steps[place] {
        let view = views.iter_mut().find(|view| is_deleted(view))?;
        view.has_text = true;
        view.shown.is_deleted = random.below(2) == 0;
    }
    Some(())
}

fn leave_out_of_a_page(run: &mut Run, random: &mut Random) -> Option<()> {
    let place = place(
        run,
        random,
        |step| matches!(step, Step::Page { views, .. } if views.len() > 2),
    )?;
    if let Step::Page { views, .. } = &mut run.steps[place] {
        views.remove(1);
    }
    Some(())
}

fn page_of_before(run: &mut Run, random: &mut Random) -> Option<()> {
    let is_changed = |view: &View| view.changed_seq > view.seq;
    let place = place(
        run,
        random,
        |step| matches!(step, Step::Page { views, by: PageBy::Newest, .. } if views.iter().any(is_changed)),
    )?;
    if let Step::Page { views, .. } = &mut run.steps[place] {
        let view = views.iter_mut().find(|view| is_changed(view))?;
        (view.changed_seq, view.shown) = (view.seq, Shown::FIRST);
        view.has_text = true;
    }
    Some(())
}

fn say_unchanged(run: &mut Run, random: &mut Random) -> Option<()> {
    let wishes = run.wishes.clone();
    let is_edit = |step: &Step| {
        matches!(step, Step::Ack(wish, ack)
            if ack.changed && matches!(wishes[*wish].want, Want::Edit { .. }))
    };
    let place = place(run, random, is_edit)?;
    if let Step::Ack(_, ack) = &mut run.steps[place] {
        ack.changed = false;
    }
    Some(())
}

fn refuse(run: &mut Run, random: &mut Random, code: &'static str) -> Option<()> {
    let deletes: Vec<u64> = run
        .wishes
        .iter()
        .filter(|wish| wish.want == Want::Delete)
        .map(|wish| wish.seq)
        .collect();
    let wishes = run.wishes.clone();
    let is_sound =
        |step: &Step| matches!(step, Step::Ack(wish, _) if !deletes.contains(&wishes[*wish].seq));
    let place = place(run, random, is_sound)?;
    if let Step::Ack(wish, _) = run.steps[place] {
        run.steps[place] = Step::Refused(wish, code);
    }
    Some(())
}

fn refuse_as_gone(run: &mut Run, random: &mut Random) -> Option<()> {
    refuse(run, random, "gone")
}

fn refuse_as_conflict(run: &mut Run, random: &mut Random) -> Option<()> {
    refuse(run, random, "revision_conflict")
}

fn refuse_as_forbidden(run: &mut Run, random: &mut Random) -> Option<()> {
    refuse(run, random, "forbidden")
}

fn do_what_is_forbidden(run: &mut Run, random: &mut Random) -> Option<()> {
    let place = place(run, random, |step| {
        matches!(step, Step::Refused(_, "forbidden" | "revision_conflict"))
    })?;
    if let Step::Refused(wish, _) = run.steps[place] {
        let ack = Ack {
            seq: 1,
            changed: true,
            revision: 2,
        };
        run.steps[place] = Step::Ack(wish, ack);
    }
    Some(())
}

fn react_in_anothers_name(run: &mut Run, random: &mut Random) -> Option<()> {
    let (_, seq) = event_of(run, random, is_reaction)?;
    everywhere(run, seq, |told| {
        if let Told::Changed(change, _) = told
            && let What::Reacted { by: Some(by), .. } = &mut change.what
        {
            by.0 = (by.0 + 1) % MEMBERS;
        }
    });
    Some(())
}

fn change_after_delete(run: &mut Run, random: &mut Random) -> Option<()> {
    let place = stored(run, random, |view| view.shown.is_deleted)?;
    run.last_seq += 1;
    let change = Change {
        message_seq: run.stored[place].seq,
        what: What::Edited,
    };
    run.stored[place].changed_seq = run.last_seq;
    for slot in 0..MEMBERS {
        let told = Told::Changed(change, None);
        run.steps.push(Step::Event(Slot(slot), run.last_seq, told));
    }
    Some(())
}

fn never_answer(run: &mut Run, random: &mut Random) -> Option<()> {
    let place = acked_change(run, random)?;
    run.steps.remove(place);
    Some(())
}

fn count_one_more_unread(run: &mut Run, random: &mut Random) -> Option<()> {
    let slot = random.below(u64::from(MEMBERS)) as usize;
    run.unread[slot].1 += 1;
    Some(())
}

fn told(run: &Run, random: &mut Random) -> Option<usize> {
    place(
        run,
        random,
        |step| matches!(step, Step::Receipt(_, _, mark) if mark.delivered > 1),
    )
}

fn go_back(run: &mut Run, random: &mut Random) -> Option<()> {
    let place = told(run, random)?;
    let mut copy = run.steps[place].clone();
    if let Step::Receipt(_, _, mark) = &mut copy {
        mark.delivered -= 1;
        mark.read = mark.read.min(mark.delivered);
    }
    run.steps.insert(place + 1, copy);
    Some(())
}

fn tell_too_much(run: &mut Run, random: &mut Random) -> Option<()> {
    let place = told(run, random)?;
    if let Step::Receipt(_, slot, mark) = &mut run.steps[place] {
        mark.delivered = run.got[slot.index()].delivered + 1;
    }
    Some(())
}

fn lose_a_receipt(run: &mut Run, random: &mut Random) -> Option<()> {
    let slot = random.below(u64::from(MEMBERS)) as usize;
    let got = &mut run.got[slot];
    got.delivered = got.delivered.checked_sub(1)?;
    got.read = got.read.min(got.delivered);
    Some(())
}

#[test]
fn every_injected_anomaly_is_found_under_its_name() {
    use Kind::{
        AckLied, AlteredMessage, ChangeLost, ChangedAfterDelete, DifferentContent, HistoryGap,
        InventedChange, Miscounted, MissingRefusal, Unanswered, UnexpectedRefusal, WatermarkAhead,
        WatermarkBack, WatermarkLost, WrongChangedFlag, WrongState, WrongUnread,
    };
    let anomalies: &[(&str, Inject, &[Kind])] = &[
        (
            "acked, not there",
            lose_an_acked_change,
            &[ChangeLost, WrongState],
        ),
        ("edit not stored", store_no_edit, &[WrongState]),
        (
            "edited twice",
            edit_twice,
            &[InventedChange, WrongState, DifferentContent],
        ),
        ("miscounted", miscount_for_all, &[Miscounted]),
        ("miscounted for one", miscount_for_one, &[DifferentContent]),
        ("another count stored", store_another_count, &[WrongState]),
        (
            "a deleted text",
            page_with_a_deleted_text,
            &[AlteredMessage, DifferentContent, WrongState],
        ),
        ("a hole in a page", leave_out_of_a_page, &[HistoryGap]),
        ("a page of before", page_of_before, &[HistoryGap]),
        ("said unchanged", say_unchanged, &[WrongChangedFlag]),
        ("gone and not", refuse_as_gone, &[UnexpectedRefusal]),
        ("no conflict", refuse_as_conflict, &[UnexpectedRefusal]),
        ("not forbidden", refuse_as_forbidden, &[UnexpectedRefusal]),
        ("forbidden", do_what_is_forbidden, &[MissingRefusal]),
        (
            "another's reaction",
            react_in_anothers_name,
            &[InventedChange, ChangeLost, AckLied, Miscounted],
        ),
        ("after delete", change_after_delete, &[ChangedAfterDelete]),
        ("no answer", never_answer, &[Unanswered]),
        ("unread", count_one_more_unread, &[WrongUnread]),
        ("went back", go_back, &[WatermarkBack]),
        ("told too much", tell_too_much, &[WatermarkAhead]),
        ("lost receipt", lose_a_receipt, &[WatermarkLost]),
    ];
    for (name, inject, kinds) in anomalies {
        let mut injected = 0;
        for seed in 0..200 {
            let mut run = make_run(seed);
            if inject(&mut run, &mut Random::new(seed ^ 0xabc)).is_none() {
                continue;
            }
            injected += 1;
            let checker = play(&run);
            assert!(
                kinds.iter().any(|kind| checker.findings.count(*kind) > 0),
                "{name}, seed {seed}: found only {:#?}",
                checker.findings.examples()
            );
        }
        assert!(injected >= 60, "{name}: only {injected} runs offer a place");
    }
}
