//! WebSocket framing (RFC 6455, section 5), over our own buffers.
//!
//! Invariants: a reader without a message in progress holds no buffer; a frame that lies whole in
//! the bytes just received is unmasked in place and handed out without a copy; text is known to
//! be UTF-8 as soon as its bytes arrive; a limit is checked before the bytes it forbids are kept;
//! how a stream is cut into chunks changes nothing.
//!
//! The header itself is read and written by tungstenite. Everything above it is here, because its
//! stream would keep 128 KiB per connection.

use super::CloseCode;
use crate::limits;
use std::io::Cursor;
use tungstenite::protocol::frame::FrameHeader;
use tungstenite::protocol::frame::coding::{Control, Data, OpCode};

/// A whole unfragmented, unmasked text frame of this payload.
pub fn encode_text(text: &str) -> Box<[u8]> {
    encode(OpCode::Data(Data::Text), text.as_bytes())
}

/// A whole unfragmented, unmasked frame.
pub fn encode(opcode: OpCode, payload: &[u8]) -> Box<[u8]> {
    let mut bytes = Vec::with_capacity(payload.len() + HEADER_BYTES_MAX);
    append(opcode, payload, &mut bytes);
    bytes.into_boxed_slice()
}

/// The payload of a whole unmasked frame that was encoded here.
pub fn payload(frame: &[u8]) -> &[u8] {
    let extended = match frame.get(1).map(|length| length & 0x7f) {
        Some(126) => 2,
        Some(127) => 8,
        _ => 0,
    };
    frame.get(2 + extended..).unwrap_or_default()
}

/// Appends the answer to a ping.
pub fn append_pong(payload: &[u8], bytes: &mut Vec<u8>) {
    append(OpCode::Control(Control::Pong), payload, bytes);
}

/// Appends a close frame; without a code it is empty, as the answer to an empty one.
pub fn append_close(code: Option<u16>, reason: &str, bytes: &mut Vec<u8>) {
    let mut payload = Vec::new();
    if let Some(code) = code {
        payload.extend_from_slice(&code.to_be_bytes());
        payload.extend_from_slice(reason.as_bytes());
    }
    append(OpCode::Control(Control::Close), &payload, bytes);
}

fn append(opcode: OpCode, payload: &[u8], bytes: &mut Vec<u8>) {
    let header = FrameHeader {
        opcode,
        ..FrameHeader::default()
    };
    header
        .format(payload.len() as u64, bytes)
        .expect("writing to a vector cannot fail");
    bytes.extend_from_slice(payload);
}

/// Longest header: two bytes, eight of length, four of mask.
const HEADER_BYTES_MAX: usize = 14;
/// Longest payload of a control frame.
const CONTROL_BYTES_MAX: u64 = 125;
/// The first buffer of a message in parts is not larger than this, bytes, whatever its header
/// announces: what is not received yet costs nothing.
const PART_CAPACITY_BYTES: u64 = 4096;

/// What a client sent.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Item<'a> {
    /// A whole text message.
    Text(&'a str),
    /// A whole binary message.
    Binary(&'a [u8]),
    /// A ping, to be answered with the same payload.
    Ping(&'a [u8]),
    /// A pong.
    Pong,
    /// The last item: a close frame, with its code if it has one.
    Close(Option<u16>),
}

/// Whether the client may say more.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Stream {
    /// It may.
    Open,
    /// Its close frame was the last; what follows is to be discarded unread.
    Closed,
}

/// Reads one client's frames. Eight bytes while nothing is in progress.
#[derive(Debug, Default)]
pub struct Reader {
    partial: Option<Box<Partial>>,
}

/// What is in progress: a header, a frame, a message in fragments, or several of them.
#[derive(Debug, Default)]
struct Partial {
    header: [u8; HEADER_BYTES_MAX],
    header_bytes: u8,
    frame: Option<Frame>,
    message: Option<Message>,
    control: Vec<u8>,
}

/// A frame whose payload is not complete.
#[derive(Clone, Copy, Debug)]
struct Frame {
    opcode: OpCode,
    last: bool,
    /// Turned so that it starts at the next byte.
    mask: [u8; 4],
    /// Bytes still to come.
    missing: usize,
}

/// A data message whose last frame is not complete.
#[derive(Debug)]
struct Message {
    text: bool,
    bytes: Vec<u8>,
    /// Up to here `bytes` is UTF-8, if it is text.
    valid: usize,
    fragments: u32,
}

impl Reader {
    /// Reads the next bytes of the stream, unmasking them in place, and calls `take` with each
    /// item that they complete, in order.
    ///
    /// # Errors
    /// How the connection is to be closed: 1002, 1007, 1009, or 4008 for too many fragments. The
    /// items before the offence were handed out. The stream cannot be read on.
    pub fn read(
        &mut self,
        chunk: &mut [u8],
        mut take: impl FnMut(Item<'_>),
    ) -> Result<Stream, CloseCode> {
        let mut rest = chunk;
        while !rest.is_empty() {
            let (used, stream) = match &mut self.partial {
                None => match read_whole(rest, &mut take)? {
                    Some(done) => done,
                    None => {
                        self.partial = Some(Box::default());
                        (0, Stream::Open)
                    }
                },
                Some(partial) => {
                    let done = partial.read(rest, &mut take)?;
                    if partial.is_idle() {
                        self.partial = None;
                    }
                    done
                }
            };
            if stream == Stream::Closed {
                self.partial = None;
                return Ok(Stream::Closed);
            }
            rest = &mut rest[used..];
        }
        Ok(Stream::Open)
    }

    /// Whether nothing is in progress, so that no buffer is held.
    pub fn is_idle(&self) -> bool {
        self.partial.is_none()
    }
}

/// Reads one frame if it lies whole in `bytes` and is a whole message.
fn read_whole(
    bytes: &mut [u8],
    take: &mut impl FnMut(Item<'_>),
) -> Result<Option<(usize, Stream)>, CloseCode> {
    let Some((header_bytes, frame)) = parse_header(bytes, None)? else {
        return Ok(None);
    };
    let whole = header_bytes + frame.missing;
    if !frame.last || bytes.len() < whole {
        return Ok(None);
    }
    let payload = &mut bytes[header_bytes..whole];
    unmask(payload, frame.mask);
    let stream = match frame.opcode {
        OpCode::Data(Data::Text) => {
            take(Item::Text(utf8(payload)?));
            Stream::Open
        }
        OpCode::Data(_) => {
            take(Item::Binary(payload));
            Stream::Open
        }
        OpCode::Control(control) => take_control(control, payload, take)?,
    };
    Ok(Some((whole, stream)))
}

impl Partial {
    fn is_idle(&self) -> bool {
        self.header_bytes == 0 && self.frame.is_none() && self.message.is_none()
    }

    /// Takes a header, a payload, or as much of one as there is.
    fn read(
        &mut self,
        bytes: &mut [u8],
        take: &mut impl FnMut(Item<'_>),
    ) -> Result<(usize, Stream), CloseCode> {
        let (used, frame) = match self.frame {
            None => {
                let (used, frame) = self.read_header(bytes)?;
                match frame {
                    None => return Ok((used, Stream::Open)),
                    Some(frame) => (used, self.begin(frame)),
                }
            }
            Some(frame) => {
                let used = frame.missing.min(bytes.len());
                (used, self.read_payload(frame, &mut bytes[..used])?)
            }
        };
        if frame.missing > 0 {
            self.frame = Some(frame);
            return Ok((used, Stream::Open));
        }
        self.frame = None;
        Ok((used, self.end(frame, take)?))
    }

    fn read_header(&mut self, bytes: &[u8]) -> Result<(usize, Option<Frame>), CloseCode> {
        let held = usize::from(self.header_bytes);
        let more = bytes.len().min(HEADER_BYTES_MAX - held);
        self.header[held..held + more].copy_from_slice(&bytes[..more]);
        let parsed = parse_header(&self.header[..held + more], self.message.as_ref())?;
        match parsed {
            None => {
                self.header_bytes = (held + more) as u8;
                Ok((more, None))
            }
            Some((header_bytes, frame)) => {
                self.header_bytes = 0;
                assert!(header_bytes > held, "a header is parsed once it is whole");
                Ok((header_bytes - held, Some(frame)))
            }
        }
    }

    fn begin(&mut self, frame: Frame) -> Frame {
        let capacity = (frame.missing as u64).min(PART_CAPACITY_BYTES) as usize;
        match frame.opcode {
            OpCode::Control(_) => self.control.clear(),
            OpCode::Data(Data::Continue) => (),
            OpCode::Data(data) => {
                self.message = Some(Message {
                    text: data == Data::Text,
                    bytes: Vec::with_capacity(capacity),
                    valid: 0,
                    fragments: 0,
                });
            }
        }
        frame
    }

    fn read_payload(&mut self, mut frame: Frame, payload: &mut [u8]) -> Result<Frame, CloseCode> {
        unmask(payload, frame.mask);
        frame.mask.rotate_left(payload.len() % 4);
        frame.missing -= payload.len();
        match (frame.opcode, &mut self.message) {
            (OpCode::Data(_), Some(message)) => message.append(payload)?,
            (OpCode::Data(_), None) => unreachable!("a data frame has its message"),
            (OpCode::Control(_), _) => self.control.extend_from_slice(payload),
        }
        Ok(frame)
    }

    fn end(&mut self, frame: Frame, take: &mut impl FnMut(Item<'_>)) -> Result<Stream, CloseCode> {
        match frame.opcode {
            OpCode::Control(control) => {
                let payload = std::mem::take(&mut self.control);
                return take_control(control, &payload, take);
            }
            OpCode::Data(_) if !frame.last => {
                if let Some(message) = &mut self.message {
                    message.fragments += 1;
                }
            }
            OpCode::Data(_) => {
                if let Some(message) = self.message.take() {
                    if message.text {
                        take(Item::Text(utf8(&message.bytes)?));
                    } else {
                        take(Item::Binary(&message.bytes));
                    }
                }
            }
        }
        Ok(Stream::Open)
    }
}

impl Message {
    fn append(&mut self, payload: &[u8]) -> Result<(), CloseCode> {
        self.bytes.extend_from_slice(payload);
        if self.text {
            match std::str::from_utf8(&self.bytes[self.valid..]) {
                Ok(_) => self.valid = self.bytes.len(),
                // A character may be cut by the end of what has arrived, but not be wrong.
                Err(error) if error.error_len().is_none() => self.valid += error.valid_up_to(),
                Err(_) => return Err(CloseCode::InvalidPayload),
            }
        }
        Ok(())
    }
}

/// Reads a header and checks everything that it alone can offend against. `None`: it is not whole.
fn parse_header(
    bytes: &[u8],
    message: Option<&Message>,
) -> Result<Option<(usize, Frame)>, CloseCode> {
    let mut cursor = Cursor::new(bytes);
    let parsed = FrameHeader::parse(&mut cursor).map_err(|_| CloseCode::ProtocolError)?;
    let Some((header, length)) = parsed else {
        return Ok(None);
    };
    let header_bytes = cursor.position() as usize;
    let Some(mask) = header.mask else {
        return Err(CloseCode::ProtocolError);
    };
    let reserved = header.rsv1 || header.rsv2 || header.rsv3;
    // The top bit of a length must be zero, and a length has one encoding.
    let odd_length = length >> 63 != 0 || header.len(length) != header_bytes;
    let misplaced = match header.opcode {
        OpCode::Control(_) => !header.is_final || length > CONTROL_BYTES_MAX,
        OpCode::Data(Data::Continue) => message.is_none(),
        OpCode::Data(_) => message.is_some(),
    };
    if reserved || odd_length || misplaced {
        return Err(CloseCode::ProtocolError);
    }
    let (held, fragments) = message.map_or((0, 0), |message| {
        (message.bytes.len() as u64, message.fragments)
    });
    if let OpCode::Data(_) = header.opcode {
        if held + length > limits::FRAME_BYTES_MAX as u64 {
            return Err(CloseCode::MessageTooBig);
        }
        if fragments >= limits::FRAGMENTS_MAX {
            return Err(CloseCode::ProtocolViolation);
        }
    }
    let frame = Frame {
        opcode: header.opcode,
        last: header.is_final,
        mask,
        missing: length as usize,
    };
    Ok(Some((header_bytes, frame)))
}

fn take_control(
    control: Control,
    payload: &[u8],
    take: &mut impl FnMut(Item<'_>),
) -> Result<Stream, CloseCode> {
    match control {
        Control::Ping => take(Item::Ping(payload)),
        Control::Pong => take(Item::Pong),
        Control::Close => {
            take(Item::Close(close_code(payload)?));
            return Ok(Stream::Closed);
        }
        Control::Reserved(_) => return Err(CloseCode::ProtocolError),
    }
    Ok(Stream::Open)
}

/// The code of a close frame; its reason is checked and not kept.
fn close_code(payload: &[u8]) -> Result<Option<u16>, CloseCode> {
    let [high, low, reason @ ..] = payload else {
        return match payload {
            [] => Ok(None),
            _ => Err(CloseCode::ProtocolError),
        };
    };
    let code = u16::from_be_bytes([*high, *low]);
    // RFC 6455, section 7.4, and the registry it made: 1004, 1005, 1006 and 1015 are never sent.
    match code {
        1000..=1003 | 1007..=1014 | 3000..=4999 => {
            utf8(reason)?;
            Ok(Some(code))
        }
        _ => Err(CloseCode::ProtocolError),
    }
}

fn utf8(bytes: &[u8]) -> Result<&str, CloseCode> {
    std::str::from_utf8(bytes).map_err(|_| CloseCode::InvalidPayload)
}

/// Takes the mask off, eight bytes at a time.
fn unmask(payload: &mut [u8], mask: [u8; 4]) {
    let [a, b, c, d] = mask;
    let word_mask = u64::from_ne_bytes([a, b, c, d, a, b, c, d]);
    let (words, tail) = payload.as_chunks_mut::<8>();
    for word in words {
        *word = (u64::from_ne_bytes(*word) ^ word_mask).to_ne_bytes();
    }
    for (index, byte) in tail.iter_mut().enumerate() {
        *byte ^= mask[index % 4];
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Clone, PartialEq, Eq, Debug)]
    enum Seen {
        Text(String),
        Binary(Vec<u8>),
        Ping(Vec<u8>),
        Pong,
        Close(Option<u16>),
        Refused(u16),
    }

    const FIN: u8 = 0x80;
    const TEXT: u8 = 1;
    const BINARY: u8 = 2;
    const CLOSE: u8 = 8;
    const PING: u8 = 9;
    const PONG: u8 = 10;

    /// A frame as a client sends it: masked, the length in its shortest form.
    fn frame(first: u8, payload: &[u8]) -> Vec<u8> {
        let mut bytes = vec![first];
        match payload.len() {
            length @ ..=125 => bytes.push(0x80 | length as u8),
            length @ ..=65_535 => {
                bytes.push(0x80 | 126);
                bytes.extend_from_slice(&(length as u16).to_be_bytes());
            }
            length => {
                bytes.push(0x80 | 127);
                bytes.extend_from_slice(&(length as u64).to_be_bytes());
            }
        }
        let mask = [0x37, 0xfa, 0x21, 0x3d];
        bytes.extend_from_slice(&mask);
        bytes.extend(payload.iter().zip(mask.iter().cycle()).map(|(b, m)| b ^ m));
        bytes
    }

    fn read(stream: &[u8], chunks: impl Iterator<Item = usize>) -> Vec<Seen> {
        let (mut reader, mut seen, mut at) = (Reader::default(), Vec::new(), 0);
        for length in chunks {
            let end = (at + length).min(stream.len());
            let mut chunk = stream[at..end].to_vec();
            at = end;
            let result = reader.read(&mut chunk, |item| {
                seen.push(match item {
                    Item::Text(text) => Seen::Text(text.to_owned()),
                    Item::Binary(bytes) => Seen::Binary(bytes.to_vec()),
                    Item::Ping(bytes) => Seen::Ping(bytes.to_vec()),
                    Item::Pong => Seen::Pong,
                    Item::Close(code) => Seen::Close(code),
                });
            });
            match result {
                Ok(Stream::Open) => (),
                Ok(Stream::Closed) => return seen,
                Err(code) => {
                    seen.push(Seen::Refused(code as u16));
                    return seen;
                }
            }
            if at == stream.len() {
                break;
            }
        }
        seen
    }

    fn check(frames: &[Vec<u8>], expected: &[Seen]) {
        let stream = frames.concat();
        assert_eq!(read(&stream, std::iter::repeat(usize::MAX >> 1)), expected);
        assert_eq!(read(&stream, std::iter::repeat(1)), expected);
    }

    fn text(text: &str) -> Seen {
        Seen::Text(text.to_owned())
    }

    #[test]
    fn whole_messages_of_every_length_encoding() {
        for length in [0, 1, 7, 8, 9, 125, 126, 127, 65_535, 65_536] {
            let payload: Vec<u8> = (0..length).map(|n| (n % 26) as u8 + b'a').collect();
            let expected = String::from_utf8(payload.clone()).expect("ascii");
            check(&[frame(FIN | TEXT, &payload)], &[Seen::Text(expected)]);
            check(&[frame(FIN | BINARY, &payload)], &[Seen::Binary(payload)]);
        }
    }

    #[test]
    fn fragments_are_joined_around_control_frames() {
        check(
            &[
                frame(TEXT, "κό".as_bytes()),
                frame(FIN | PING, b"1"),
                frame(0, &"σμε".as_bytes()[..3]),
                frame(FIN | PONG, b""),
                frame(0, b""),
                frame(FIN, &"σμε".as_bytes()[3..]),
                frame(BINARY, b"\xff"),
                frame(FIN, b"\xfe"),
                frame(FIN | TEXT, b"after"),
            ],
            &[
                Seen::Ping(b"1".to_vec()),
                Seen::Pong,
                text("κόσμε"),
                Seen::Binary(b"\xff\xfe".to_vec()),
                text("after"),
            ],
        );
    }

    #[test]
    fn a_character_cut_by_a_fragment_is_whole_and_cut_by_the_end_is_not() {
        let coffee = "☕".as_bytes();
        check(
            &[frame(TEXT, &coffee[..1]), frame(FIN, &coffee[1..])],
            &[text("☕")],
        );
        check(
            &[frame(TEXT, &coffee[..1]), frame(FIN, b"")],
            &[Seen::Refused(1007)],
        );
        check(&[frame(FIN | TEXT, &coffee[..2])], &[Seen::Refused(1007)]);
    }

    #[test]
    fn wrong_text_is_refused_before_the_frame_is_whole() {
        let mut reader = Reader::default();
        let mut bytes = frame(FIN | TEXT, b"fine \xf4\x90 and much more that never comes");
        bytes.truncate(6 + 7);
        assert_eq!(
            reader.read(&mut bytes, |item| panic!("{item:?}")),
            Err(CloseCode::InvalidPayload)
        );
    }

    #[test]
    fn broken_rules_of_the_header() {
        let unmasked = vec![FIN | TEXT, 1, b'a'];
        let long_for_16 = [vec![FIN | TEXT, 0x80 | 126, 0, 5], vec![0; 9]].concat();
        let long_for_64 = [vec![FIN | TEXT, 0xff, 0, 0, 0, 0, 0, 0, 1, 0], vec![0; 4]].concat();
        let top_bit = [vec![FIN | TEXT, 0xff, 0x80], vec![0; 11]].concat();
        let mut long_ping = frame(FIN | BINARY, &[0; 126]);
        long_ping[0] = FIN | PING;
        for offence in [
            frame(FIN | 0x40 | TEXT, b""),
            frame(FIN | 0x20 | TEXT, b""),
            frame(FIN | 0x10 | PING, b""),
            frame(FIN | 3, b""),
            frame(FIN | 7, b""),
            frame(FIN | 11, b""),
            frame(FIN | 15, b""),
            frame(PING, b""),
            frame(CLOSE, b""),
            frame(FIN, b"a continuation of nothing"),
            frame(0, b"a continuation of nothing"),
            unmasked,
            long_for_16,
            long_for_64,
            top_bit,
            long_ping,
        ] {
            check(
                &[frame(FIN | TEXT, b"a"), offence],
                &[text("a"), Seen::Refused(1002)],
            );
        }
        check(
            &[frame(TEXT, b"a"), frame(FIN | TEXT, b"b")],
            &[Seen::Refused(1002)],
        );
    }

    #[test]
    fn a_close_is_the_last_item() {
        let close =
            |code: u16, reason: &[u8]| frame(FIN | CLOSE, &[&code.to_be_bytes(), reason].concat());
        let after = frame(FIN | TEXT, b"ignored");
        check(&[frame(FIN | CLOSE, b""), after], &[Seen::Close(None)]);
        for code in [1000, 1001, 1003, 1007, 1011, 1014, 3000, 4999] {
            check(
                &[close(code, "grüß".as_bytes())],
                &[Seen::Close(Some(code))],
            );
        }
        for code in [0, 999, 1004, 1005, 1006, 1015, 1016, 2999, 5000, 65_535] {
            check(&[close(code, b"")], &[Seen::Refused(1002)]);
        }
        check(&[frame(FIN | CLOSE, b"1")], &[Seen::Refused(1002)]);
        check(&[close(1000, b"\xce\xba\xe1")], &[Seen::Refused(1007)]);
    }

    #[test]
    fn too_large_is_refused_by_the_header_alone() {
        let announce = |first: u8, length: usize| {
            let mut bytes = vec![first, 0xff];
            bytes.extend_from_slice(&(length as u64).to_be_bytes());
            bytes.extend_from_slice(&[0; 4]);
            bytes
        };
        let above = limits::FRAME_BYTES_MAX + 1;
        check(&[announce(FIN | TEXT, above)], &[Seen::Refused(1009)]);
        check(&[announce(BINARY, above)], &[Seen::Refused(1009)]);
        check(
            &[frame(TEXT, b"a"), announce(FIN, above - 1)],
            &[Seen::Refused(1009)],
        );
    }

    #[test]
    fn too_many_empty_fragments_are_refused() {
        let count = limits::FRAGMENTS_MAX as usize;
        let mut frames = vec![frame(0, b""); count];
        frames[0] = frame(TEXT, b"");
        let whole = [&frames[..count - 1], &[frame(FIN, b"")]].concat();
        check(&whole, &[text("")]);
        frames.push(frame(0, b""));
        check(&frames, &[Seen::Refused(4008)]);
    }

    #[test]
    fn an_idle_reader_holds_nothing() {
        assert_eq!(size_of::<Reader>(), 8);
        let mut reader = Reader::default();
        let mut bytes = [frame(TEXT, b"a"), frame(FIN, b"b")].concat();
        let (first, second) = bytes.split_at_mut(9);
        reader.read(first, |_| ()).expect("in order");
        assert!(!reader.is_idle());
        reader.read(second, |_| ()).expect("in order");
        assert!(reader.is_idle());
    }

    #[test]
    fn any_cut_gives_the_same_items() {
        let mut random = 0x9e37_79b9_7f4a_7c15_u64;
        let mut next = move |below: u64| {
            random ^= random << 13;
            random ^= random >> 7;
            random ^= random << 17;
            random % below
        };
        for _ in 0..2_000 {
            let mut frames = Vec::new();
            for _ in 0..1 + next(8) {
                let length = [0, 1, 5, 125, 126, 300][next(6) as usize];
                let mut payload: Vec<u8> = (0..length).map(|_| b'a' + next(26) as u8).collect();
                if next(20) == 0 && length > 0 {
                    payload[next(length) as usize] = [0xc3, 0xa9][next(2) as usize];
                }
                let firsts = [0x81, 0x01, 0x00, 0x80, 0x82, 0x02, 0x89, 0x8a, 0x88];
                let kinds = if next(10) == 0 { 9 } else { 8 };
                let first = firsts[next(kinds) as usize];
                let control = first & 0x08 != 0;
                let length = if control {
                    payload.len().min(125)
                } else {
                    payload.len()
                };
                frames.push(frame(first, &payload[..length]));
            }
            let stream = frames.concat();
            let whole = read(&stream, std::iter::repeat(usize::MAX >> 1));
            assert_eq!(read(&stream, std::iter::repeat(1)), whole);
            let cuts: Vec<usize> = (0..stream.len()).map(|_| 1 + next(40) as usize).collect();
            assert_eq!(read(&stream, cuts.into_iter()), whole);
        }
    }
}
