//! What somebody looks for: any text is a query or has too many words; what the stores are asked holds nothing
//! that they would read as more than words; and a text is found by itself.

#![no_main]

use caffis_chat::limits;
use caffis_chat::protocol::{ErrorCode, RoomId};
use caffis_chat::search::{Before, Query, tsvector, words};
use libfuzzer_sys::fuzz_target;
use uuid::Uuid;

fuzz_target!(|text: &str| {
    let of_text = words(text);
    for word in &of_text {
        let is_plain = |c: char| !c.is_whitespace() && !c.is_control() && !"'\"\\:*&|!<>()".contains(c);
        assert!(!word.is_empty() && word.chars().all(is_plain), "{word:?}");
    }
    let room = RoomId(Uuid::nil());
    assert_eq!(tsvector(room, text).is_empty(), of_text.is_empty());
    match Query::parse(text) {
        Ok(query) => {
            assert!(query.finds(text), "{text:?} does not find itself");
            assert_eq!(query.is_empty(), of_text.is_empty());
            for asked in [query.tsquery(&[room]), query.fts(&[room])] {
                let quotes = asked.matches(['\'', '"']).count();
                assert!(quotes % 2 == 0 && !asked.contains(['\\', '\0']), "{asked:?}");
            }
        }
        Err(refusal) => {
            assert_eq!(refusal.code, ErrorCode::TooLarge);
            assert!(of_text.len() > limits::SEARCH_TERMS_MAX);
        }
    }
    if let Ok(before) = Before::parse(Some(text)) {
        assert_eq!(Before::parse(Some(&before.to_text())), Ok(before));
    }
});
