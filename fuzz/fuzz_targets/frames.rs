//! A client's bytes as WebSocket frames. However they arrive, in one piece or in many, they mean the same,
//! and nothing is in progress after a close.

#![no_main]

use caffis_chat::protocol::websocket::{Item, Reader, Stream};
use libfuzzer_sys::fuzz_target;

/// What was read, and how it ended.
type Read = (Vec<String>, Result<bool, u16>);

fn read<'a>(chunks: impl Iterator<Item = &'a [u8]>) -> Read {
    let mut reader = Reader::default();
    let mut items = Vec::new();
    for chunk in chunks {
        let mut chunk = chunk.to_vec();
        let told = reader.read(&mut chunk, |item: Item<'_>| items.push(format!("{item:?}")));
        match told {
            Ok(Stream::Open) => (),
            Ok(Stream::Closed) => {
                assert!(reader.is_idle(), "a buffer is held after a close");
                return (items, Ok(true));
            }
            Err(code) => return (items, Err(code as u16)),
        }
    }
    (items, Ok(false))
}

fuzz_target!(|input: &[u8]| {
    // The first bytes say how the rest is cut.
    let Some((cuts, bytes)) = input.split_first_chunk::<4>() else {
        return;
    };
    let whole = read(std::iter::once(bytes));
    let singly = read(bytes.chunks(1));
    assert_eq!(whole, singly, "byte by byte");
    let mut rest = bytes;
    let mut turn = 0;
    let pieces = std::iter::from_fn(|| {
        let length = (usize::from(cuts[turn % cuts.len()]) + 1).min(rest.len());
        turn += 1;
        let (piece, after) = rest.split_at(length);
        rest = after;
        (!piece.is_empty()).then_some(piece)
    });
    assert_eq!(whole, read(pieces), "in pieces");
});
