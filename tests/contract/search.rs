//! Search: what is found by which words, by whom, in which order; the same on every store.

use crate::harness::*;
use caffis_chat::chat::port::*;
use caffis_chat::limits;
use caffis_chat::protocol::search::SearchHits;
use caffis_chat::protocol::{ErrorCode, RoomId, Seq};
use std::time::{Duration, Instant};

const DEADLINE: Duration = Duration::from_secs(60);

fn read(n: u128, query: &str) -> SearchRead {
    SearchRead {
        user: user(n),
        query: query.to_owned(),
        room: None,
        before: None,
        limit: limits::SEARCH_PAGE_MAX,
        bytes_max: usize::MAX,
    }
}

fn try_search(backend: &Backend, read: SearchRead) -> Result<SearchHits, Refusal> {
    match backend.call(StoreCall::Search(read)) {
        StoreAnswer::Search(page) => page,
        other => panic!("{other:?}"),
    }
}

fn hits(page: &SearchHits) -> Vec<(RoomId, Seq)> {
    let hits = page.hits.iter();
    hits.map(|hit| (hit.room_id, hit.message.seq)).collect()
}

/// What is found, on one page.
pub fn found(backend: &Backend, n: u128, query: &str) -> Vec<(RoomId, Seq)> {
    let page = try_search(backend, read(n, query)).expect("a page");
    assert!(!page.has_more && page.next_before.is_none(), "{query}");
    hits(&page)
}

/// Waits until this and nothing else is found.
fn wait_found(backend: &Backend, n: u128, query: &str, expected: &[(RoomId, Seq)]) {
    let deadline = Instant::now() + DEADLINE;
    loop {
        let now = found(backend, n, query);
        if now == expected {
            return;
        }
        assert!(
            Instant::now() < deadline,
            "{query}: {now:?}, not {expected:?}"
        );
    }
}

/// Sends a message at this time, in ms after the start.
fn say(backend: &Backend, room: RoomId, n: u128, id: u128, ms: u64, text: &str) -> Seq {
    backend.set_clock_ms(START_MS + ms);
    sent(&backend.done(send(room, n, id, text))).0
}

/// Waits until everything that was said before is indexed, in the order of rooms and events.
pub fn settle(backend: &Backend, room: RoomId, n: u128, id: u128) {
    let seq = say(backend, room, n, id, 900_000 + id as u64, "settled");
    let deadline = Instant::now() + DEADLINE;
    while !found(backend, n, "\"settled\"").contains(&(room, seq)) {
        assert!(Instant::now() < deadline, "nothing is indexed");
    }
}

#[test]
fn texts_of_any_script_are_found_by_their_words() {
    for backend in Backend::all() {
        backend.users(2);
        let room = group_id(1, 1);
        backend.done(create_group(1, 1, [2]));
        let texts = [
            "The Café by the canal doesn't close at 4 o'clock",
            "Grüße aus KÖLN, straßenbahnhaltestelle",
            "Ёлка в Москве: встреча у ёлки",
            "مَرْحَبًا بالعالم، القهوة جاهزة",
            "東京タワーで会いましょう",
            "커피 마시러 갈까요?",
            "नमस्ते दुनिया",
            "พบกันที่สถานีรถไฟ",
            "ok 👍🏽 then, 🎉🎉",
            "https://example.com/a-b?c=d mail@example.com #tag @name snake_case",
            "' OR 1=1; -- \\ \" * & | ! ( ) : <-> NEAR AND NOT",
            "café",
        ];
        let mut seqs = Vec::new();
        for (n, text) in (0u64..).zip(texts) {
            seqs.push(say(&backend, room, 1, u128::from(n), 10 * n, text));
        }
        settle(&backend, room, 1, 99);
        let cases: &[(&str, &[usize])] = &[
            ("cafe", &[11, 0]),
            ("CAFÉ canal", &[0]),
            ("canal caf", &[0]),
            ("can cafe", &[]),
            ("can* cafe", &[0]),
            ("\"by the canal\"", &[0]),
            ("\"canal the\"", &[]),
            ("\"by the can\"", &[]),
            ("doesn't", &[0]),
            ("o'clock 4", &[0]),
            ("t doesn", &[0]),
            ("grusse koln", &[1]),
            ("grüsse", &[1]),
            ("Straßenbahn", &[1]),
            ("STRASSENBAHN", &[1]),
            ("haltestelle", &[]),
            ("елк", &[2]),
            ("ЁЛКА москве", &[2]),
            ("\"у ёлки\"", &[2]),
            ("مرحبا", &[3]),
            ("القهوة", &[3]),
            ("東京", &[4]),
            ("タワー", &[4]),
            ("京東", &[]),
            ("会 東京", &[4]),
            ("커피", &[5]),
            ("마시", &[5]),
            ("नमस्ते", &[6]),
            ("दुनि", &[6]),
            ("สถานี", &[7]),
            ("👍", &[8]),
            ("👍🏿", &[8]),
            ("🎉🎉", &[8]),
            ("👍🎉", &[]),
            ("example.com", &[9]),
            ("\"mail@example.com\"", &[9]),
            ("tag name", &[9]),
            ("snake_case", &[9]),
            ("or near", &[10]),
            ("AND NOT", &[10]),
            ("1=1", &[10]),
            ("-cafe", &[11, 0]),
            ("cafe | tea", &[]),
            ("cafe OR tea", &[]),
            ("tea", &[]),
            ("…", &[]),
            ("* \"\" '", &[]),
        ];
        for (query, expected) in cases {
            let expected: Vec<_> = expected.iter().map(|n| (room, seqs[*n])).collect();
            assert_eq!(found(&backend, 2, query), expected, "{query}");
        }
    }
}

#[test]
fn edits_are_found_by_the_new_words_and_what_was_deleted_not_at_all() {
    for mut backend in Backend::all() {
        backend.users(2);
        let room = group_id(1, 1);
        backend.done(create_group(1, 1, [2]));
        let first = say(&backend, room, 1, 1, 1, "tea at four");
        let second = say(&backend, room, 2, 2, 2, "tea at five");
        wait_found(&backend, 1, "tea", &[(room, second), (room, first)]);
        backend.done(react(room, 2, first, "👍"));
        backend.done(edit(room, 1, first, "coffee at four"));
        // Not for a moment by what it no longer says.
        assert_eq!(found(&backend, 1, "tea"), [(room, second)]);
        wait_found(&backend, 2, "coffee", &[(room, first)]);
        let page = try_search(&backend, read(2, "coffee")).expect("a page");
        let message = &page.hits[0].message;
        assert_eq!((message.revision, message.sender_id), (2, user(1)));
        assert_eq!(message.reactions["👍"].mine, Some(true));
        assert_eq!(*message, backend.message(room, 2, first));
        backend.done(delete(room, 2, second));
        assert_eq!(found(&backend, 1, "tea"), []);
        backend.done(edit(room, 1, first, "tea again"));
        wait_found(&backend, 1, "tea", &[(room, first)]);
        assert_eq!(found(&backend, 1, "coffee"), []);
        // Members and titles are no messages of people.
        assert_eq!(found(&backend, 1, "group"), []);
        assert_eq!(found(&backend, 1, "u1"), []);
        backend.reopen();
        let third = say(&backend, room, 1, 3, 3, "tea for two");
        wait_found(&backend, 1, "tea", &[(room, third), (room, first)]);
    }
}

#[test]
fn only_members_find_anything_and_nothing_of_whom_they_block() {
    for backend in Backend::all() {
        backend.users(4);
        let (room, other) = (group_id(1, 1), group_id(1, 2));
        backend.done(create_group(1, 1, [2, 3]));
        backend.done(create_group(1, 2, []));
        let mine = say(&backend, room, 1, 1, 1, "a secret word");
        let theirs = say(&backend, room, 2, 2, 2, "another secret");
        let elsewhere = say(&backend, other, 1, 3, 3, "the secret of one");
        let all = [(other, elsewhere), (room, theirs), (room, mine)];
        wait_found(&backend, 1, "secret", &all);
        assert_eq!(found(&backend, 3, "secret"), all[1..]);
        assert_eq!(found(&backend, 4, "secret"), []);
        let within = |n, room| {
            let read = SearchRead {
                room: Some(room),
                ..read(n, "secret")
            };
            try_search(&backend, read).map(|page| hits(&page))
        };
        assert_eq!(within(1, other), Ok(vec![all[0]]));
        assert_eq!(within(1, room), Ok(all[1..].to_vec()));
        for refused in [within(2, other), within(4, room), within(1, group_id(9, 9))] {
            assert_eq!(refused.expect_err("refused").code, ErrorCode::Forbidden);
        }
        // A word that looks like a room leads to no other.
        let text = format!("secret {}", room.0.simple());
        let last = say(&backend, other, 1, 4, 4, &text);
        wait_found(&backend, 1, &room.0.simple().to_string(), &[(other, last)]);
        assert_eq!(within(1, room), Ok(all[1..].to_vec()));
        // Whom one blocks is not found; who blocks one is.
        backend.done(block(3, 2));
        assert_eq!(found(&backend, 3, "secret"), [(room, mine)]);
        assert_eq!(found(&backend, 2, "secret"), all[1..]);
        backend.done(unblock(3, 2));
        assert_eq!(found(&backend, 3, "secret"), all[1..]);
        // Who left finds nothing, who comes finds what was before.
        backend.done(leave(room, 3));
        assert_eq!(found(&backend, 3, "secret"), []);
        backend.done(add(room, 1, [4]));
        assert_eq!(found(&backend, 4, "secret"), all[1..]);
    }
}

#[test]
fn pages_are_newest_first_over_all_rooms_and_miss_nothing() {
    let mut answers = Vec::new();
    for backend in Backend::all() {
        backend.users(1);
        // More rooms than a query names, and one that is asked for alone.
        let rooms: Vec<RoomId> = (1..=40).map(|name| group_id(1, name)).collect();
        let made = (1..=40).map(|name| create_group(1, name, [])).collect();
        assert!(backend.commit(made).iter().all(Result::is_ok));
        let mut expected = Vec::new();
        for n in 0..120u64 {
            let room = rooms[(n as usize * 7) % rooms.len()];
            // Three in each millisecond.
            backend.set_clock_ms(START_MS + n / 3);
            let text = format!("word number {n}");
            let done = backend.done(send(room, 1, u128::from(n), &text));
            expected.push((START_MS + n / 3, (room, sent(&done).0)));
        }
        settle(&backend, rooms[0], 1, 999);
        let deadline = Instant::now() + DEADLINE;
        let pages = |limit, bytes_max, room| {
            let (mut all, mut before) = (Vec::new(), None);
            loop {
                let asked = SearchRead {
                    limit,
                    bytes_max,
                    room,
                    before,
                    ..read(1, "number wor")
                };
                let page = try_search(&backend, asked).expect("a page");
                assert!(page.hits.len() <= limit);
                assert_eq!(page.has_more, page.next_before.is_some());
                let times = page.hits.iter().map(|hit| hit.message.created_at.0);
                let times: Vec<u64> = times.collect();
                assert!(times.is_sorted_by(|a, b| a >= b), "{times:?}");
                all.extend(times.into_iter().zip(hits(&page)));
                before = page.next_before;
                if before.is_none() {
                    return all;
                }
            }
        };
        while pages(50, usize::MAX, None).len() < expected.len() {
            assert!(Instant::now() < deadline, "not all are indexed");
        }
        let whole = pages(50, usize::MAX, None);
        for (limit, bytes_max) in [(1, usize::MAX), (7, usize::MAX), (50, 0), (50, 100)] {
            assert_eq!(pages(limit, bytes_max, None), whole, "{limit}, {bytes_max}");
        }
        let mut sorted = whole.clone();
        sorted.sort_unstable();
        expected.sort_unstable();
        assert_eq!(sorted, expected);
        let one = pages(2, usize::MAX, Some(rooms[3]));
        let of_one: Vec<_> = whole
            .iter()
            .filter(|(_, it)| it.0 == rooms[3])
            .copied()
            .collect();
        assert_eq!(one, of_one);
        answers.push(whole);
        for wrong in ["", "x", "1-2-3"] {
            let asked = SearchRead {
                before: Some(wrong.to_owned()),
                ..read(1, "word")
            };
            let refused = try_search(&backend, asked).expect_err("refused");
            assert_eq!(refused.code, ErrorCode::BadRequest);
        }
    }
    assert_eq!(answers[0], answers[1], "in the same order everywhere");
}

/// Whatever is typed is a query, and whatever is found has its words.
#[test]
fn nothing_that_can_be_typed_is_an_error() {
    const PARTS: &[&str] = &[
        "\"",
        "'",
        "''",
        "*",
        ":*",
        ":A",
        "&",
        "|",
        "!",
        "(",
        ")",
        "<->",
        "<2>",
        "\\",
        "\\'",
        "-",
        "+",
        "^",
        "{",
        "}",
        ":",
        ",",
        "NEAR(",
        "AND",
        "OR",
        "NOT",
        "room",
        "document :",
        "@",
        "%",
        "_",
        ";",
        "--",
        "/*",
        "a",
        "ab",
        "tea",
        "ß",
        "İ",
        "ﬃ",
        "東",
        "e\u{301}",
        "\u{200d}",
        "👍🏽",
        "\u{feff}",
        "\u{202e}",
        "\n",
        "\t",
        " ",
        " ",
        " ",
        "\u{1}",
        "\u{10ffff}",
        "١٢",
        "𝒯𝑒𝒶",
        "ﷺ",
    ];
    for backend in Backend::all() {
        backend.users(1);
        let room = group_id(1, 1);
        backend.done(create_group(1, 1, []));
        let mut random = Random(7);
        let any = |random: &mut Random| {
            let count = 1 + random.below(12);
            let parts = (0..count).map(|_| random.pick(PARTS));
            parts.collect::<String>()
        };
        let texts: Vec<String> = (0..60).map(|_| any(&mut random)).collect();
        let sends = (0u128..).zip(&texts);
        let sends = sends.map(|(n, text)| send(room, 1, n, text)).collect();
        assert!(backend.commit(sends).iter().all(Result::is_ok));
        settle(&backend, room, 1, 999);
        let mut hit = 0;
        for _ in 0..300 {
            let query = any(&mut random);
            match try_search(&backend, read(1, &query)) {
                Ok(page) => hit += page.hits.len(),
                Err(refusal) => assert_eq!(refusal.code, ErrorCode::TooLarge, "{query:?}"),
            }
        }
        assert!(hit > 100, "only {hit} were found");
    }
}
