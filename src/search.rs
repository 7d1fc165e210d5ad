//! What is found by which words: the same on every backend, because words are made here and not there.
//!
//! A text becomes words: lower case and compatibility forms (NFKC), without the marks that people leave out
//! (accents of Latin, Greek and Cyrillic letters, vowels of Arabic and Hebrew), `ß` as `ss`. A word is letters,
//! digits and the marks on them. Of scripts that are written without spaces (Chinese, Japanese, Thai, Lao,
//! Burmese, Khmer) each character is a word, and so is each emoji, without its variation, skin and joiners.
//!
//! A query is words that must all be there, the last of them as a beginning, and so each one with `*` behind it;
//! `"…"` is words one after the other. Whatever in between white space is several words (`don't`, 東京) is one after
//! the other too. Anything else means nothing.

use crate::chat::port::Refusal;
use crate::limits;
use crate::protocol::{ErrorCode, RoomId, Seq, UnixMs};
use std::fmt::Write as _;
use unicode_normalization::UnicodeNormalization;
use unicode_normalization::char::is_combining_mark;
use uuid::Uuid;

/// Words of one message that can be found; a text of the longest has no more.
const WORDS_MAX: usize = limits::TEXT_CHARS_MAX;
/// Characters of a word; what follows makes no difference.
const WORD_CHARS_MAX: usize = 64;
/// Characters that the beginning of a word must have: a single letter begins half of all words.
const PREFIX_CHARS_MIN: usize = 2;
/// Of a user in up to so many rooms only the entries of these are looked at; of others those of all, by
/// the words alone.
pub const ROOMS_NAMED_MAX: usize = 32;

/// The words of a text, in their order.
pub fn words(text: &str) -> Vec<String> {
    let folded = (text.chars())
        .flat_map(char::to_lowercase)
        .nfkd()
        .filter(|c| !is_left_out(*c))
        .flat_map(char::to_lowercase)
        .nfkc();
    let (mut words, mut word, mut chars) = (Vec::new(), String::new(), 0);
    for c in folded {
        if stands_alone(c) {
            end(&mut words, &mut word, &mut chars);
            words.push(c.to_string());
        } else if c.is_alphanumeric() || chars > 0 && is_combining_mark(c) {
            chars += 1;
            if chars <= WORD_CHARS_MAX {
                match c {
                    'ß' => word.push_str("ss"),
                    'ς' => word.push('σ'),
                    c => word.push(c),
                }
            }
        } else {
            end(&mut words, &mut word, &mut chars);
        }
    }
    end(&mut words, &mut word, &mut chars);
    words.truncate(WORDS_MAX);
    words
}

fn end(words: &mut Vec<String>, word: &mut String, chars: &mut usize) {
    *chars = 0;
    if !word.is_empty() {
        words.push(std::mem::take(word));
    }
}

/// Marks that people write or not, and what only changes how a character looks.
fn is_left_out(c: char) -> bool {
    matches!(c,
        '\u{300}'..='\u{36f}' | '\u{591}'..='\u{5bd}' | '\u{5bf}' | '\u{5c1}'..='\u{5c2}'
        | '\u{5c4}'..='\u{5c5}' | '\u{5c7}' | '\u{610}'..='\u{61a}' | '\u{640}'
        | '\u{64b}'..='\u{65f}' | '\u{670}' | '\u{6d6}'..='\u{6dc}' | '\u{6df}'..='\u{6e4}'
        | '\u{20e3}' | '\u{fe00}'..='\u{fe0f}' | '\u{1f3fb}'..='\u{1f3ff}')
}

/// A character of a script without spaces, or a symbol such as an emoji.
fn stands_alone(c: char) -> bool {
    let unspaced = matches!(c,
        '\u{e00}'..='\u{eff}' | '\u{1000}'..='\u{109f}' | '\u{1780}'..='\u{17ff}'
        | '\u{2e80}'..='\u{2fdf}' | '\u{3005}'..='\u{3007}' | '\u{3021}'..='\u{3029}'
        | '\u{3040}'..='\u{312f}' | '\u{31a0}'..='\u{31bf}' | '\u{31f0}'..='\u{31ff}'
        | '\u{3400}'..='\u{4dbf}' | '\u{4e00}'..='\u{9fff}' | '\u{f900}'..='\u{faff}'
        | '\u{20000}'..='\u{3ffff}');
    let symbol = matches!(c, '\u{2190}'..='\u{2bff}' | '\u{1f000}'..='\u{1faff}');
    unspaced && (c.is_alphanumeric() || is_combining_mark(c)) || symbol && !c.is_alphanumeric()
}

/// What is asked for.
#[derive(Debug, Default)]
pub struct Query {
    terms: Vec<Term>,
}

/// Words one after the other.
#[derive(Debug, PartialEq, Eq)]
struct Term {
    words: Vec<String>,
    /// The last of them is the beginning of one.
    is_prefix: bool,
}

impl Query {
    /// Reads a query; every text is one.
    ///
    /// # Errors
    /// `too_large` with more than [`limits::SEARCH_TERMS_MAX`] terms.
    pub fn parse(text: &str) -> Result<Query, Refusal> {
        let mut query = Query::default();
        // Outside and inside of quotes, in turn.
        let mut parts = text.split('"').enumerate().peekable();
        while let Some((n, part)) = parts.next() {
            if n % 2 == 1 {
                query.push(part, false);
                continue;
            }
            let is_last = parts.peek().is_none();
            let mut chunks = part.split_whitespace().peekable();
            while let Some(chunk) = chunks.next() {
                let ends = is_last && chunks.peek().is_none();
                query.push(chunk, ends || chunk.ends_with('*'));
            }
        }
        match query.terms.len() > limits::SEARCH_TERMS_MAX {
            false => Ok(query),
            true => Err(Refusal {
                code: ErrorCode::TooLarge,
                message: "too many words in one query",
            }),
        }
    }

    fn push(&mut self, text: &str, is_prefix: bool) {
        let words = words(text);
        if let Some(last) = words.last() {
            let is_prefix = is_prefix && last.chars().count() >= PREFIX_CHARS_MIN;
            let term = Term { words, is_prefix };
            if !self.terms.contains(&term) {
                self.terms.push(term);
            }
        }
    }

    /// Whether there is nothing to look for.
    pub fn is_empty(&self) -> bool {
        self.terms.is_empty()
    }

    /// Whether a text is found.
    pub fn finds(&self, text: &str) -> bool {
        let words = words(text);
        self.terms.iter().all(|term| term.is_in(&words))
    }

    /// As a `tsquery` of PostgreSQL, in any of these rooms, or wherever. Words hold nothing that would have to be
    /// escaped.
    pub fn tsquery(&self, rooms: &[RoomId]) -> String {
        let mut text = String::new();
        for term in &self.terms {
            let words: Vec<String> = term.words.iter().map(|word| format!("'{word}'")).collect();
            let star = if term.is_prefix { ":*" } else { "" };
            let and = if text.is_empty() { "" } else { " & " };
            let _ = write!(text, "{and}({}{star})", words.join(" <-> "));
        }
        if !rooms.is_empty() {
            let rooms: Vec<String> = rooms.iter().map(|room| room_lexeme(*room)).collect();
            let _ = write!(text, " & ({})", rooms.join(" | "));
        }
        text
    }

    /// As a query of SQLite's FTS5, in any of these rooms, or wherever.
    pub fn fts(&self, rooms: &[RoomId]) -> String {
        let mut text = String::new();
        for term in &self.terms {
            let star = if term.is_prefix { " *" } else { "" };
            let and = if text.is_empty() { "" } else { " AND " };
            let _ = write!(text, "{and}document : \"{}\"{star}", term.words.join(" "));
        }
        if !rooms.is_empty() {
            let rooms: Vec<String> = (rooms.iter())
                .map(|room| format!("\"{}\"", room.0.simple()))
                .collect();
            let _ = write!(text, " AND room : ({})", rooms.join(" OR "));
        }
        text
    }
}

impl Term {
    fn is_in(&self, words: &[String]) -> bool {
        let [first @ .., last] = self.words.as_slice() else {
            return true;
        };
        words.windows(self.words.len()).any(|window| {
            let (before, end) = window.split_at(first.len());
            before == first
                && match self.is_prefix {
                    true => end[0].starts_with(last.as_str()),
                    false => end[0] == *last,
                }
        })
    }
}

/// How a `tsvector` names the room, apart from all words.
fn room_lexeme(room: RoomId) -> String {
    format!("'@{}'", room.0.simple())
}

/// The words of a text as a `tsvector` of PostgreSQL, with their places, and the room. Without words: nothing.
pub fn tsvector(room: RoomId, text: &str) -> String {
    let words = words(text);
    let mut vector = String::new();
    if !words.is_empty() {
        vector.push_str(&room_lexeme(room));
    }
    for (place, word) in (1..).zip(words) {
        let _ = write!(vector, " '{word}':{place}");
    }
    vector
}

/// Where a message stands among all: by time, within a millisecond by its room, of which some bits have to
/// do, and in a room as it was said. The same on every backend.
pub fn place_of(room: RoomId, seq: Seq, created_at: UnixMs) -> u64 {
    // SplitMix64 (Steele, Lea, Flood, OOPSLA 2014), of which the last bits are kept.
    let (high, low) = room.0.as_u64_pair();
    let mut z = (high ^ low).wrapping_add(0x9e37_79b9_7f4a_7c15);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    let of_room = (z ^ (z >> 31)) & ((1 << PLACE_ROOM_BITS) - 1);
    let of_seq = seq & ((1 << PLACE_SEQ_BITS) - 1);
    let place = created_at.0 << PLACE_ROOM_BITS | of_room;
    (place << PLACE_SEQ_BITS | of_seq) & (i64::MAX as u64)
}

/// With those of `seq` 21, so that 42 bits of milliseconds last until the year 2109.
const PLACE_ROOM_BITS: u32 = 11;
/// More messages than one room is sent in a millisecond.
const PLACE_SEQ_BITS: u32 = 10;

/// Before which message a page begins.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Before {
    /// Its [`place_of`].
    pub place: u64,
    /// Its room.
    pub room: RoomId,
    /// Its `seq`.
    pub seq: Seq,
}

impl Before {
    /// The newest page.
    pub const NOW: Before = Before {
        place: i64::MAX as u64,
        room: RoomId(Uuid::max()),
        seq: i64::MAX as u64,
    };

    /// As a client keeps it.
    pub fn to_text(self) -> String {
        format!("{:x}-{}-{:x}", self.place, self.room.0.simple(), self.seq)
    }

    /// The inverse of [`Before::to_text`].
    ///
    /// # Errors
    /// `bad_request` for what it did not make.
    pub fn parse(text: Option<&str>) -> Result<Before, Refusal> {
        let Some(text) = text else {
            return Ok(Before::NOW);
        };
        let read = || {
            let mut parts = text.splitn(3, '-');
            let place = u64::from_str_radix(parts.next()?, 16).ok()?;
            let room = Uuid::try_parse(parts.next()?).ok()?;
            let seq = u64::from_str_radix(parts.next()?, 16).ok()?;
            let is_ours = place <= Before::NOW.place && seq <= Before::NOW.seq;
            is_ours.then_some(Before {
                place,
                room: RoomId(room),
                seq,
            })
        };
        read().ok_or(Refusal {
            code: ErrorCode::BadRequest,
            message: "no such `before`",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn query(text: &str) -> Query {
        Query::parse(text).expect("a query")
    }

    #[test]
    fn texts_of_any_script_become_words() {
        let cases: &[(&str, &[&str])] = &[
            ("Grüße aus KÖLN!", &["grusse", "aus", "koln"]),
            ("naïve café ﬁn ①", &["naive", "cafe", "fin", "1"]),
            ("don't e-mail a_b", &["don", "t", "e", "mail", "a", "b"]),
            ("Ёлка в МОСКВЕ", &["елка", "в", "москве"]),
            ("مَرْحَبًا بالعالم", &["مرحبا", "بالعالم"]),
            ("שָׁלוֹם", &["שלום"]),
            ("ΟΔΥΣΣΕΥΣ Ὀδυσσεύς", &["οδυσσευσ", "οδυσσευσ"]),
            ("İstanbul ISTANBUL", &["istanbul", "istanbul"]),
            ("नमस्ते दुनिया", &["नमस्ते", "दुनिया"]),
            ("東京タワーへ", &["東", "京", "タ", "ワ", "ー", "へ"]),
            ("ｶﾞ", &["カ\u{3099}".nfc().collect::<String>().leak()]),
            ("안녕하세요", &["안녕하세요"]),
            ("สวัสดี", &["ส", "ว", "\u{e31}", "ส", "ด", "\u{e35}"]),
            (
                "ok👍🏽👨‍👩‍👧 ❤️ 🇨🇭",
                &["ok", "👍", "👨", "👩", "👧", "❤", "🇨", "🇭"],
            ),
            ("a'b\\c:*&|!<->()", &["a", "b", "c"]),
            ("\u{301}\u{200d} \t …", &[]),
        ];
        for (text, expected) in cases {
            assert_eq!(words(text), *expected, "{text}");
        }
        assert_eq!(words(&"x".repeat(500))[0].len(), WORD_CHARS_MAX);
        assert_eq!(words(&"東".repeat(9_000)).len(), WORDS_MAX);
    }

    #[test]
    fn a_query_finds_what_has_all_its_words() {
        let text = "The Café by the canal doesn't close: 東京タワー 👍";
        for found in [
            "cafe canal",
            "CANAL the ca",
            "cl",
            "\"by the canal\"",
            "\"the canal\" clo",
            "can* the",
            "doesn't",
            "東京",
            "タワー 東",
            "👍",
            "canal -close",
            "canal & | ! ( ) :",
            "\"canal",
        ] {
            assert!(query(found).finds(text), "{found}");
        }
        for missed in [
            "tea",
            "can the",
            "\"the by\"",
            "\"by the can\"",
            "京東",
            "c",
            "canal tea",
            "doesn",
        ] {
            let hit = query(missed).finds(text);
            assert_eq!(hit, missed == "doesn", "{missed}");
        }
        assert!(query("… !! \"\" *").is_empty());
        let many: Vec<String> = (0..=limits::SEARCH_TERMS_MAX)
            .map(|n| n.to_string())
            .collect();
        let refused = Query::parse(&many.join(" ")).expect_err("refused");
        assert_eq!(refused.code, ErrorCode::TooLarge);
    }

    #[test]
    fn a_place_is_that_of_the_time_and_a_cursor_comes_back() {
        let room = RoomId(Uuid::from_u128(7));
        let at = |ms, seq| place_of(room, seq, UnixMs(ms));
        assert!(at(1_700_000_000_000, 9) < at(1_700_000_000_001, 1));
        assert!(at(1, 1) < at(1, 2), "in a room as it was said");
        let before = Before {
            place: at(1_700_000_000_000, 9),
            room,
            seq: 9,
        };
        assert_eq!(Before::parse(Some(&before.to_text())), Ok(before));
        assert_eq!(Before::parse(None), Ok(Before::NOW));
        for wrong in ["", "x", "1-2-3", "-", "ffffffffffffffff-0-0"] {
            assert!(Before::parse(Some(wrong)).is_err(), "{wrong}");
        }
    }
}
