//! The checker against thousands of made-up runs: clean ones must stay without a finding, and each
//! anomaly, put in at a random place, must be found under its name.

use super::*;
use crate::random::Random;

const ROOMS: usize = 2;
const MEMBERS: usize = 3;
const PAYLOAD_BYTES: u32 = 40;

#[derive(Clone, Debug)]
enum Step {
    Attempt(u32),
    Uncertain(u32),
    Ack {
        number: u32,
        seq: u64,
        duplicate: bool,
    },
    Event {
        at: (usize, usize),
        seq: u64,
        number: u32,
        altered: bool,
    },
    Ready {
        at: (usize, usize),
        last_seq: u64,
        recovered: bool,
        from_seq: u64,
    },
    Page {
        at: (usize, usize),
        after_seq: u64,
        numbers: Vec<(u64, u32)>,
        has_more: bool,
        last_seq: u64,
    },
}

/// A run: its messages by (room, slot), what happened, and what the store holds.
#[derive(Clone, Debug, Default)]
struct Run {
    sends: Vec<(usize, usize)>,
    steps: Vec<Step>,
    stored: Vec<Vec<(u64, u32)>>,
}

/// One member while a run is made up.
#[derive(Clone, Default)]
struct Member {
    position: u64,
    /// Where the next page goes on.
    paged: u64,
    stream: u64,
    catching_up: bool,
    unacked: Vec<(u32, bool)>,
}

fn make_run(seed: u64) -> Run {
    let mut random = Random::new(seed);
    let mut run = Run {
        stored: vec![Vec::new(); ROOMS],
        ..Run::default()
    };
    let mut members = vec![vec![Member::default(); MEMBERS]; ROOMS];
    // Some anomalies show only where no connection breaks.
    let is_calm = seed.is_multiple_of(3);
    for turn in 0..240 {
        let at = (
            random.below(ROOMS as u64) as usize,
            random.below(MEMBERS as u64) as usize,
        );
        let is_ending = turn >= 200;
        match random.below(10) {
            0..=2 if !is_ending => send(&mut run, &mut members, at),
            3 if !is_calm => reconnect(&mut run, &mut members, at, &mut random),
            4 | 5 => ack_one(&mut run, &mut members[at.0][at.1]),
            6 => page(&mut run, &mut members, at, &mut random),
            _ => deliver(&mut run, &mut members, at),
        }
    }
    for room in 0..ROOMS {
        for slot in 0..MEMBERS {
            while members[room][slot].catching_up {
                page(&mut run, &mut members, (room, slot), &mut random);
            }
            while members[room][slot].stream < run.stored[room].len() as u64 {
                deliver(&mut run, &mut members, (room, slot));
            }
            while !members[room][slot].unacked.is_empty() {
                ack_one(&mut run, &mut members[room][slot]);
            }
        }
    }
    run
}

fn send(run: &mut Run, members: &mut [Vec<Member>], at: (usize, usize)) {
    let number = run.sends.len() as u32;
    run.sends.push(at);
    run.steps.push(Step::Attempt(number));
    let seq = run.stored[at.0].len() as u64 + 1;
    run.stored[at.0].push((seq, number));
    members[at.0][at.1].unacked.push((number, false));
}

fn ack_one(run: &mut Run, member: &mut Member) {
    if member.unacked.is_empty() {
        return;
    }
    let (number, duplicate) = member.unacked.remove(0);
    let room = run.sends[number as usize].0;
    let seq = run.stored[room]
        .iter()
        .find(|(_, stored)| *stored == number)
        .unwrap()
        .0;
    run.steps.push(Step::Ack {
        number,
        seq,
        duplicate,
    });
}

fn deliver(run: &mut Run, members: &mut [Vec<Member>], at: (usize, usize)) {
    let member = &mut members[at.0][at.1];
    let Some((seq, number)) = run.stored[at.0].get(member.stream as usize).copied() else {
        return;
    };
    member.stream = seq;
    if !member.catching_up {
        member.position = member.position.max(seq);
    }
    run.steps.push(Step::Event {
        at,
        seq,
        number,
        altered: false,
    });
}

fn reconnect(run: &mut Run, members: &mut [Vec<Member>], at: (usize, usize), random: &mut Random) {
    let member = &mut members[at.0][at.1];
    let last_seq = run.stored[at.0].len() as u64;
    let recovered = random.below(2) == 0;
    for (number, _) in &member.unacked {
        run.steps.push(Step::Uncertain(*number));
    }
    run.steps.push(Step::Ready {
        at,
        last_seq,
        recovered,
        from_seq: member.position + 1,
    });
    member.stream = if recovered { member.position } else { last_seq };
    member.catching_up = !recovered && member.position < last_seq;
    member.paged = member.position;
    for (number, duplicate) in &mut member.unacked {
        *duplicate = true;
        run.steps.push(Step::Attempt(*number));
    }
}

fn page(run: &mut Run, members: &mut [Vec<Member>], at: (usize, usize), random: &mut Random) {
    let member = &mut members[at.0][at.1];
    if !member.catching_up {
        return;
    }
    let last_seq = run.stored[at.0].len() as u64;
    let until = (member.paged + random.between(1, 5)).min(last_seq);
    run.steps.push(Step::Page {
        at,
        after_seq: member.paged,
        numbers: run.stored[at.0][member.paged as usize..until as usize].to_vec(),
        has_more: until < last_seq,
        last_seq,
    });
    member.paged = until;
    if until == last_seq {
        member.catching_up = false;
        member.position = until.max(member.stream);
    }
}

fn client(at: (usize, usize)) -> ClientIndex {
    ClientIndex((at.0 * MEMBERS + at.1) as u32)
}

fn place(at: (usize, usize)) -> (RoomIndex, Slot) {
    (RoomIndex(at.0 as u32), Slot(at.1 as u32))
}

fn play(run: &Run) -> Checker {
    let rooms: Vec<Vec<ClientIndex>> = (0..ROOMS)
        .map(|room| (0..MEMBERS).map(|slot| client((room, slot))).collect())
        .collect();
    let mut checker = Checker::new(MessageIds::new(7), ROOMS * MEMBERS, &rooms);
    for room in 0..ROOMS {
        for slot in 0..MEMBERS {
            let (room, slot) = place((room, slot));
            checker.joined(room, slot, 0);
        }
    }
    for (number, at) in run.sends.iter().enumerate() {
        let (room, slot) = place(*at);
        checker.add_message(room, slot, 1_000_000 + number as u64, PAYLOAD_BYTES);
    }
    let mut connections = vec![vec![1; MEMBERS]; ROOMS];
    for step in &run.steps {
        play_step(&mut checker, run, &mut connections, step);
    }
    let histories: Vec<RoomHistory> = run
        .stored
        .iter()
        .map(|stored| RoomHistory {
            last_seq: stored.last().map_or(0, |(seq, _)| *seq),
            contents: stored
                .iter()
                .map(|(seq, number)| (*seq, Content::Message(MessageNumber(*number))))
                .collect(),
            ..RoomHistory::default()
        })
        .collect();
    checker.finish(&histories);
    checker
}

fn play_step(checker: &mut Checker, run: &Run, connections: &mut [Vec<u32>], step: &Step) {
    match step {
        Step::Attempt(number) => {
            let at = run.sends[*number as usize];
            checker.attempted(MessageNumber(*number), connections[at.0][at.1]);
        }
        Step::Uncertain(number) => checker.uncertain(MessageNumber(*number)),
        Step::Ack {
            number,
            seq,
            duplicate,
        } => {
            let at = run.sends[*number as usize];
            let number = MessageNumber(*number);
            let id = checker.ids.id(number, 1_000_000 + u64::from(number.0));
            let (room, _) = place(at);
            checker.acked(client(at), number, id, Some(room), *seq, *duplicate);
        }
        Step::Event {
            at,
            seq,
            number,
            altered,
        } => {
            let (room, slot) = place(*at);
            // Stands for the frame's fingerprint; never 0, which stands for none.
            let mark = u64::from(*number) << 1 | u64::from(*altered) | 1 << 40;
            if checker.event(room, slot, *seq, mark).needs_content {
                with_message(checker, run, *number, *altered, |checker, observed| {
                    let ts = format!("2026-01-01T00:00:00.{seq:03}Z");
                    checker.content(room, *seq, mark, &ts, Some(observed));
                });
            }
        }
        Step::Ready {
            at,
            last_seq,
            recovered,
            from_seq,
        } => {
            connections[at.0][at.1] += 1;
            let (room, slot) = place(*at);
            checker.ready(
                room,
                slot,
                ReadyRoom {
                    last_seq: *last_seq,
                    recovered: *recovered,
                    from_seq: recovered.then_some(*from_seq),
                    to_seq: recovered.then_some(*last_seq),
                    reason: (!recovered).then_some("too_much"),
                    was_asked: true,
                },
            );
        }
        Step::Page {
            at,
            after_seq,
            numbers,
            has_more,
            last_seq,
        } => {
            let (room, slot) = place(*at);
            let texts: Vec<String> = numbers
                .iter()
                .map(|(_, number)| checker.text(MessageNumber(*number)))
                .collect();
            let messages = numbers
                .iter()
                .zip(&texts)
                .map(|((seq, number), text)| (*seq, observe(checker, run, *number, text)))
                .collect();
            let next = numbers.last().map_or(*last_seq, |(seq, _)| *seq);
            let page = Page {
                after_seq: *after_seq,
                messages,
                has_more: *has_more,
                last_seq: *last_seq,
                next_after_seq: Some(if *has_more { next } else { *last_seq }),
            };
            checker.page(room, slot, &page);
        }
    }
}

fn observe<'a>(checker: &Checker, run: &Run, number: u32, text: &'a str) -> Observed<'a> {
    Observed {
        sender_id: Some(identity::user_id(client(run.sends[number as usize]))),
        client_msg_id: Some(
            checker
                .ids
                .id(MessageNumber(number), 1_000_000 + u64::from(number)),
        ),
        kind: "text",
        text,
        ..Observed::default()
    }
}

fn with_message(
    checker: &mut Checker,
    run: &Run,
    number: u32,
    altered: bool,
    use_it: impl FnOnce(&mut Checker, Observed<'_>),
) {
    let mut text = checker.text(MessageNumber(number));
    if altered {
        text.pop();
        text.push('#');
    }
    let observed = observe(checker, run, number, &text);
    use_it(checker, observed);
}

/// Puts one anomaly into a run; `None` if this run offers no place for it.
type Inject = fn(&mut Run, &mut Random) -> Option<()>;

fn pick<T: Copy>(places: &[T], random: &mut Random) -> Option<T> {
    places
        .get(random.below(places.len() as u64) as usize)
        .copied()
}

fn places(run: &Run, wanted: impl Fn(&Step) -> bool) -> Vec<usize> {
    (0..run.steps.len())
        .filter(|place| wanted(&run.steps[*place]))
        .collect()
}

fn event(run: &mut Run, random: &mut Random) -> Option<usize> {
    pick(
        &places(run, |step| matches!(step, Step::Event { .. })),
        random,
    )
}

/// Another event of the same member on the same connection, after `place`.
fn next_event(run: &Run, place: usize) -> Option<usize> {
    let Step::Event { at, .. } = run.steps[place] else {
        return None;
    };
    for (later, step) in run.steps.iter().enumerate().skip(place + 1) {
        match step {
            Step::Event { at: other, .. } if *other == at => return Some(later),
            Step::Ready { at: other, .. } | Step::Page { at: other, .. } if *other == at => {
                return None;
            }
            _ => {}
        }
    }
    None
}

fn lose_a_delivery(run: &mut Run, random: &mut Random) -> Option<()> {
    let place = event(run, random)?;
    // Followed by another on the same connection, or the very last of its member: what comes
    // before a reconnect is replayed.
    let Step::Event { at, seq, .. } = run.steps[place] else {
        return None;
    };
    let was_paged = run
        .steps
        .iter()
        .any(|step| matches!(step, Step::Page { at: a, .. } if *a == at));
    // What a page has brought already is not lost with its event.
    let is_last = seq == run.stored[at.0].len() as u64 && !was_paged;
    next_event(run, place).or(is_last.then_some(0))?;
    let others = run
        .steps
        .iter()
        .filter(|step| matches!(step, Step::Event { at: a, seq: s, .. } if *a == at && *s == seq));
    let is_paged = run.steps[place..]
        .iter()
        .any(|step| matches!(step, Step::Ready { at: a, .. } if *a == at));
    if others.count() > 1 || is_paged {
        return None;
    }
    run.steps.remove(place);
    Some(())
}

fn double_a_delivery(run: &mut Run, random: &mut Random) -> Option<()> {
    let place = event(run, random)?;
    let copy = run.steps[place].clone();
    run.steps.insert(place + 1, copy);
    Some(())
}

fn swap_two_deliveries(run: &mut Run, random: &mut Random) -> Option<()> {
    let place = event(run, random)?;
    let next = next_event(run, place)?;
    run.steps.swap(place, next);
    Some(())
}

fn alter_a_text(run: &mut Run, random: &mut Random) -> Option<()> {
    let place = event(run, random)?;
    if let Step::Event { altered, .. } = &mut run.steps[place] {
        *altered = true;
    }
    Some(())
}

fn show_one_member_another_message(run: &mut Run, random: &mut Random) -> Option<()> {
    let place = event(run, random)?;
    let Step::Event { at, number, .. } = &mut run.steps[place] else {
        return None;
    };
    let others: Vec<u32> = run.stored[at.0]
        .iter()
        .map(|(_, stored)| *stored)
        .filter(|stored| stored != number)
        .collect();
    *number = pick(&others, random)?;
    Some(())
}

fn leave_out_a_seq(run: &mut Run, random: &mut Random) -> Option<()> {
    let room = random.below(ROOMS as u64) as usize;
    let stored = &run.stored[room];
    let from = pick(stored, random)?.0;
    let moved = |seq: &mut u64| {
        if *seq >= from {
            *seq += 1;
        }
    };
    run.stored[room].iter_mut().for_each(|(seq, _)| moved(seq));
    let sends = run.sends.clone();
    for step in &mut run.steps {
        match step {
            Step::Event { at, seq, .. } if at.0 == room => moved(seq),
            Step::Ack { number, seq, .. } if sends[*number as usize].0 == room => moved(seq),
            Step::Ready { at, last_seq, .. } if at.0 == room => moved(last_seq),
            Step::Page {
                at,
                after_seq,
                numbers,
                last_seq,
                ..
            } if at.0 == room => {
                moved(after_seq);
                moved(last_seq);
                numbers.iter_mut().for_each(|(seq, _)| moved(seq));
            }
            _ => {}
        }
    }
    Some(())
}

fn ack_another_seq(run: &mut Run, random: &mut Random) -> Option<()> {
    let place = pick(
        &places(run, |step| matches!(step, Step::Ack { .. })),
        random,
    )?;
    if let Step::Ack { seq, .. } = &mut run.steps[place] {
        *seq += random.between(1, 3);
    }
    Some(())
}

fn ack_what_is_not_stored(run: &mut Run, random: &mut Random) -> Option<()> {
    let place = pick(
        &places(run, |step| matches!(step, Step::Ack { .. })),
        random,
    )?;
    let Step::Ack { number, .. } = run.steps[place] else {
        return None;
    };
    forget(run, number);
    Some(())
}

/// The message vanishes from the store and from everybody's events; the others keep their places.
fn forget(run: &mut Run, number: u32) {
    run.stored
        .iter_mut()
        .for_each(|stored| stored.retain(|(_, other)| *other != number));
    run.steps
        .retain(|step| !matches!(step, Step::Event { number: other, .. } if *other == number));
}

fn lose_from_the_store(run: &mut Run, random: &mut Random) -> Option<()> {
    let place = event(run, random)?;
    let Step::Event { at, seq, .. } = run.steps[place] else {
        return None;
    };
    run.stored[at.0].retain(|(other, _)| *other != seq);
    Some(())
}

fn claim_a_duplicate(run: &mut Run, random: &mut Random) -> Option<()> {
    let first = |step: &Step| matches!(step, Step::Ack { duplicate, .. } if !duplicate);
    let place = pick(&places(run, first), random)?;
    if let Step::Ack { duplicate, .. } = &mut run.steps[place] {
        *duplicate = true;
    }
    Some(())
}

fn store_a_message_twice(run: &mut Run, random: &mut Random) -> Option<()> {
    let room = random.below(ROOMS as u64) as usize;
    let (_, number) = pick(&run.stored[room], random)?;
    let seq = run.stored[room].len() as u64 + 1;
    run.stored[room].push((seq, number));
    for slot in 0..MEMBERS {
        run.steps.push(Step::Event {
            at: (room, slot),
            seq,
            number,
            altered: false,
        });
    }
    Some(())
}

fn deny_a_duplicate(run: &mut Run, random: &mut Random) -> Option<()> {
    // A probe: the message is sent again after its ack, and the server calls it new.
    let acks = places(run, |step| matches!(step, Step::Ack { .. }));
    let Step::Ack { number, seq, .. } = run.steps[pick(&acks, random)?] else {
        return None;
    };
    run.steps.push(Step::Attempt(number));
    run.steps.push(Step::Ack {
        number,
        seq,
        duplicate: false,
    });
    Some(())
}

fn replay_from_too_late(run: &mut Run, random: &mut Random) -> Option<()> {
    let missed = |step: &Step| {
        matches!(step, Step::Ready { recovered: true, from_seq, last_seq, .. }
            if from_seq <= last_seq)
    };
    let place = pick(&places(run, missed), random)?;
    if let Step::Ready { from_seq, .. } = &mut run.steps[place] {
        *from_seq += 1;
    }
    Some(())
}

fn forget_the_newest(run: &mut Run, random: &mut Random) -> Option<()> {
    let has_some = |step: &Step| matches!(step, Step::Ready { from_seq, .. } if *from_seq > 1);
    let place = pick(&places(run, has_some), random)?;
    if let Step::Ready {
        last_seq, from_seq, ..
    } = &mut run.steps[place]
    {
        *last_seq = *from_seq - 2;
    }
    Some(())
}

fn leave_a_message_out_of_a_page(run: &mut Run, random: &mut Random) -> Option<()> {
    let filled = |step: &Step| matches!(step, Step::Page { numbers, .. } if numbers.len() > 2);
    let place = pick(&places(run, filled), random)?;
    if let Step::Page { numbers, .. } = &mut run.steps[place] {
        // Not the first: in a room's place 1 stands its creation, which a page may leave out.
        numbers.remove(1);
    }
    Some(())
}

fn exchange_two_sends(run: &mut Run, random: &mut Random) -> Option<()> {
    // Two messages of one member to one room, each sent once, with no reconnect in the run.
    let number = random.below(run.sends.len() as u64) as u32;
    let at = run.sends[number as usize];
    let next = (number + 1..run.sends.len() as u32).find(|n| run.sends[*n as usize] == at)?;
    let is_disturbed = run
        .steps
        .iter()
        .any(|step| matches!(step, Step::Ready { at: a, .. } if *a == at));
    if is_disturbed {
        return None;
    }
    let exchanged = |other: &mut u32| {
        if *other == number {
            *other = next;
        } else if *other == next {
            *other = number;
        }
    };
    run.stored[at.0]
        .iter_mut()
        .for_each(|(_, other)| exchanged(other));
    for step in &mut run.steps {
        match step {
            Step::Event { number, .. } | Step::Ack { number, .. } => exchanged(number),
            Step::Page { numbers, .. } => {
                numbers.iter_mut().for_each(|(_, other)| exchanged(other));
            }
            Step::Attempt(_) | Step::Uncertain(_) | Step::Ready { .. } => {}
        }
    }
    // Both must have left before either was answered, so put all attempts first.
    let (attempts, others): (Vec<Step>, Vec<Step>) = run
        .steps
        .drain(..)
        .partition(|step| matches!(step, Step::Attempt(n) if *n == number || *n == next));
    run.steps = attempts;
    run.steps.extend(others);
    Some(())
}

fn never_answer(run: &mut Run, random: &mut Random) -> Option<()> {
    let place = pick(
        &places(run, |step| matches!(step, Step::Ack { .. })),
        random,
    )?;
    run.steps.remove(place);
    Some(())
}

#[test]
fn a_clean_run_has_no_finding() {
    for seed in 0..3000 {
        let checker = play(&make_run(seed));
        assert!(
            checker.findings.is_clean(),
            "seed {seed}: {:#?}",
            checker.findings.examples()
        );
        assert!(checker.messages().len() > 10);
    }
}

#[test]
fn every_injected_anomaly_is_found_under_its_name() {
    let anomalies: [(&str, Inject, &[Kind]); 17] = [
        ("lost", lose_a_delivery, &[Kind::Gap, Kind::LostDelivery]),
        ("doubled", double_a_delivery, &[Kind::DoubledDelivery]),
        ("swapped", swap_two_deliveries, &[Kind::OutOfOrder]),
        ("altered", alter_a_text, &[Kind::AlteredMessage]),
        (
            "shown another",
            show_one_member_another_message,
            &[Kind::DifferentContent, Kind::DoubledMessage, Kind::AckLied],
        ),
        ("left out", leave_out_a_seq, &[Kind::Gap, Kind::HistoryGap]),
        (
            "ack of another",
            ack_another_seq,
            &[Kind::AckLied, Kind::DoubledMessage],
        ),
        ("ack of nothing", ack_what_is_not_stored, &[Kind::AckedLost]),
        (
            "not in the store",
            lose_from_the_store,
            &[Kind::DeliveredNotStored],
        ),
        (
            "false duplicate",
            claim_a_duplicate,
            &[Kind::WrongDuplicateFlag],
        ),
        (
            "denied duplicate",
            deny_a_duplicate,
            &[Kind::WrongDuplicateFlag],
        ),
        (
            "stored twice",
            store_a_message_twice,
            &[Kind::DoubledMessage],
        ),
        ("replayed late", replay_from_too_late, &[Kind::WrongResume]),
        ("forgotten", forget_the_newest, &[Kind::AheadOfServer]),
        (
            "hole in a page",
            leave_a_message_out_of_a_page,
            &[Kind::HistoryGap],
        ),
        ("sender order", exchange_two_sends, &[Kind::SenderOrder]),
        ("no answer", never_answer, &[Kind::Unanswered]),
    ];
    for (name, inject, kinds) in anomalies {
        let mut injected = 0;
        for seed in 0..1500 {
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
        assert!(
            injected >= 100,
            "{name}: only {injected} runs offer a place"
        );
    }
}

/// Two members of one room, both joined at 0.
fn pair() -> Checker {
    let mut checker = Checker::new(
        MessageIds::new(1),
        2,
        &[vec![ClientIndex(0), ClientIndex(1)]],
    );
    checker.joined(RoomIndex(0), Slot(0), 0);
    checker.joined(RoomIndex(0), Slot(1), 0);
    checker
}

fn sent(checker: &mut Checker, due_us: u64) -> MessageNumber {
    let number = checker.add_message(RoomIndex(0), Slot(0), due_us, PAYLOAD_BYTES);
    checker.attempted(number, 1);
    number
}

fn ack(checker: &mut Checker, number: MessageNumber, due_us: u64, seq: u64, duplicate: bool) {
    let id = checker.ids.id(number, due_us);
    checker.acked(
        ClientIndex(0),
        number,
        id,
        Some(RoomIndex(0)),
        seq,
        duplicate,
    );
}

#[test]
fn acks_after_a_power_cut_are_void_and_those_before_it_are_not() {
    let mut checker = pair();
    let before = sent(&mut checker, 1);
    let open = sent(&mut checker, 2);
    ack(&mut checker, before, 1, 1, false);
    let snapshot = checker.clone();
    // In the machine's last moments: an ack and another message, neither on the disk.
    ack(&mut checker, open, 2, 2, false);
    let after = sent(&mut checker, 3);
    ack(&mut checker, after, 3, 3, false);
    checker.restore(snapshot.clone());
    // `open` is sent again; it may be new or a duplicate, both are right.
    checker.attempted(open, 2);
    ack(&mut checker, open, 2, 2, false);
    let stored = |numbers: &[MessageNumber]| RoomHistory {
        last_seq: numbers.len() as u64,
        contents: (1..)
            .zip(numbers.iter().map(|n| Content::Message(*n)))
            .collect(),
        ..RoomHistory::default()
    };
    let mut survived = checker.clone();
    for slot in [Slot(0), Slot(1)] {
        survived.cursor_mut(RoomIndex(0), slot).position = 2;
    }
    let mut lost = survived.clone();
    survived.finish(&[stored(&[before, open])]);
    assert!(survived.findings.is_clean(), "{:?}", survived.findings);
    lost.finish(&[RoomHistory {
        last_seq: 2,
        contents: vec![(2, Content::Message(open))],
        ..RoomHistory::default()
    }]);
    assert_eq!(lost.findings.kinds(), vec![Kind::AckedLost]);
}

#[test]
fn rate_limited_is_no_excuse_for_a_duplicate() {
    let mut checker = pair();
    let number = sent(&mut checker, 1);
    checker.attempted(number, 1);
    ack(&mut checker, number, 1, 1, true);
    assert_eq!(checker.findings.kinds(), vec![Kind::WrongDuplicateFlag]);
}

#[test]
fn a_refused_message_must_not_show_up() {
    let mut checker = pair();
    let number = sent(&mut checker, 1);
    checker.refused(number, "forbidden");
    let text = checker.text(number);
    let observed = Observed {
        sender_id: Some(identity::user_id(ClientIndex(0))),
        client_msg_id: Some(checker.ids.id(number, 1)),
        kind: "text",
        text: &text,
        ..Observed::default()
    };
    checker.event(RoomIndex(0), Slot(1), 1, 9);
    checker.content(RoomIndex(0), 1, 9, "", Some(observed));
    assert_eq!(checker.findings.count(Kind::RefusedStored), 1);
}

#[test]
fn messages_of_others_are_compared_between_members_too() {
    let mut checker = pair();
    let observed = |text| Observed {
        sender_id: None,
        client_msg_id: Some(Uuid::from_u128(5)),
        kind: "text",
        text,
        ..Observed::default()
    };
    for (slot, text) in [(0, "same"), (1, "other")] {
        let mark = slot;
        assert!(
            checker
                .event(RoomIndex(0), Slot(slot), 1, u64::from(mark))
                .needs_content
        );
        checker.content(RoomIndex(0), 1, u64::from(mark), "", Some(observed(text)));
    }
    assert_eq!(checker.findings.kinds(), vec![Kind::DifferentContent]);
}

#[test]
fn time_must_not_run_backwards_within_a_room() {
    let mut checker = pair();
    for (seq, ts) in [
        (1, "2026-01-01T00:00:00.005Z"),
        (2, "2026-01-01T00:00:00.004Z"),
    ] {
        checker.event(RoomIndex(0), Slot(0), seq, seq);
        checker.content(RoomIndex(0), seq, seq, ts, None);
    }
    assert_eq!(checker.findings.kinds(), vec![Kind::TimeWentBack]);
}

#[test]
fn an_absurd_seq_costs_no_memory() {
    let mut checker = pair();
    checker.event(RoomIndex(0), Slot(0), u64::MAX - 1, 1);
    assert!(checker.rooms[0].entries.len() < 10);
    assert!(checker.findings.count(Kind::Gap) > 0);
}

#[test]
fn a_message_has_the_file_it_was_sent_with_and_no_other() {
    let (own, other) = (Uuid::from_u128(1), Uuid::from_u128(2));
    for (file, is_right) in [(Some(own), true), (Some(other), false), (None, false)] {
        let mut checker = pair();
        let number = sent(&mut checker, 1);
        checker.attach(number, own);
        let text = checker.text(number);
        let observed = Observed {
            sender_id: Some(identity::user_id(ClientIndex(0))),
            client_msg_id: Some(checker.ids.id(number, 1)),
            kind: "file",
            text: &text,
            file,
            ..Observed::default()
        };
        checker.event(RoomIndex(0), Slot(1), 1, 9);
        checker.content(RoomIndex(0), 1, 9, "", Some(observed));
        let expected = if is_right {
            vec![]
        } else {
            vec![Kind::AlteredMessage]
        };
        assert_eq!(checker.findings.kinds(), expected, "{file:?}");
        // A tombstone has none.
        let shown = super::Shown {
            is_deleted: true,
            ..super::Shown::FIRST
        };
        let deleted = Observed {
            text: "",
            shown,
            changed_seq: 2,
            ..observed
        };
        let before = checker.findings.total();
        checker.hit(RoomIndex(0), 1, deleted);
        let more = checker.findings.total() - before;
        assert_eq!(more, u64::from(file.is_some()), "{file:?}");
    }
}

#[test]
fn a_search_finds_messages_as_they_are_everywhere_else() {
    let mut checker = pair();
    let number = sent(&mut checker, 1);
    let text = checker.text(number);
    let observed = |text| Observed {
        sender_id: Some(identity::user_id(ClientIndex(0))),
        client_msg_id: Some(checker.ids.id(number, 1)),
        kind: "text",
        text,
        ..Observed::default()
    };
    let (right, wrong) = (observed(text.as_str()), observed("other"));
    checker.hit(RoomIndex(0), 1, right);
    assert!(checker.findings.is_clean(), "{:?}", checker.findings);
    checker.hit(RoomIndex(0), 1, wrong);
    assert_eq!(checker.findings.kinds(), vec![Kind::AlteredMessage]);
    checker.hit(RoomIndex(0), 2, right);
    assert_eq!(checker.findings.count(Kind::DoubledMessage), 1);
}
