//! WebSocket framing of a client (RFC 6455), written anew rather than borrowed, so that the server's
//! framing is checked by code that shares nothing with it.
//!
//! Invariants: a frame from the server is never masked and sets no reserved bit; control frames are
//! whole and short. Anything else is a [`FrameError`], which the engine reports as a closed
//! connection and the checker as a finding.

use crate::limits::FRAME_BYTES_MAX;

pub const CONTINUATION: u8 = 0x0;
pub const TEXT: u8 = 0x1;
pub const BINARY: u8 = 0x2;
pub const CLOSE: u8 = 0x8;
pub const PING: u8 = 0x9;
pub const PONG: u8 = 0xA;

/// Largest payload of a control frame.
pub const CONTROL_BYTES_MAX: usize = 125;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FrameStart {
    pub is_final: bool,
    pub opcode: u8,
    pub header_bytes: usize,
    pub payload_bytes: usize,
}

impl FrameStart {
    pub fn frame_bytes(&self) -> usize {
        self.header_bytes + self.payload_bytes
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FrameError {
    ReservedBit,
    ReservedOpcode,
    Masked,
    TooLong,
    BadControlFrame,
    BadFragment,
    NotUtf8,
}

impl FrameError {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::ReservedBit => "reserved bit set",
            Self::ReservedOpcode => "reserved opcode",
            Self::Masked => "masked frame from the server",
            Self::TooLong => "frame too long",
            Self::BadControlFrame => "control frame fragmented or too long",
            Self::BadFragment => "fragments out of place",
            Self::NotUtf8 => "text is not UTF-8",
        }
    }
}

/// Reads a server frame's header. `None`: more bytes are needed.
pub fn parse_start(bytes: &[u8]) -> Result<Option<FrameStart>, FrameError> {
    let [first, second, ..] = *bytes else {
        return Ok(None);
    };
    if first & 0x70 != 0 {
        return Err(FrameError::ReservedBit);
    }
    if second & 0x80 != 0 {
        return Err(FrameError::Masked);
    }
    let opcode = first & 0x0f;
    let is_final = first & 0x80 != 0;
    let (header_bytes, payload_bytes) = match second & 0x7f {
        126 => match bytes.get(2..4) {
            Some(length) => (4, u64::from(u16::from_be_bytes([length[0], length[1]]))),
            None => return Ok(None),
        },
        127 => match bytes.get(2..10) {
            Some(length) => {
                let mut word = [0; 8];
                word.copy_from_slice(length);
                (10, u64::from_be_bytes(word))
            }
            None => return Ok(None),
        },
        short => (2, u64::from(short)),
    };
    if payload_bytes > FRAME_BYTES_MAX as u64 {
        return Err(FrameError::TooLong);
    }
    let payload_bytes = payload_bytes as usize;
    match opcode {
        CONTINUATION | TEXT | BINARY => {}
        CLOSE | PING | PONG => {
            if !is_final || payload_bytes > CONTROL_BYTES_MAX {
                return Err(FrameError::BadControlFrame);
            }
        }
        _ => return Err(FrameError::ReservedOpcode),
    }
    Ok(Some(FrameStart {
        is_final,
        opcode,
        header_bytes,
        payload_bytes,
    }))
}

/// Appends one whole masked client frame.
pub fn write_masked(output: &mut Vec<u8>, opcode: u8, payload: &[u8], mask: u32) {
    output.push(0x80 | opcode);
    match payload.len() {
        length @ 0..=125 => output.push(0x80 | length as u8),
        length @ 126..=0xffff => {
            output.push(0x80 | 126);
            output.extend_from_slice(&(length as u16).to_be_bytes());
        }
        length => {
            output.push(0x80 | 127);
            output.extend_from_slice(&(length as u64).to_be_bytes());
        }
    }
    let mask = mask.to_ne_bytes();
    output.extend_from_slice(&mask);
    let start = output.len();
    output.extend_from_slice(payload);
    for chunk in output[start..].chunks_mut(4) {
        for (byte, key) in chunk.iter_mut().zip(mask) {
            *byte ^= key;
        }
    }
}

/// The code of a close frame's payload; `None` for an empty one.
pub fn close_code(payload: &[u8]) -> Option<u16> {
    let [high, low, ..] = *payload else {
        return None;
    };
    Some(u16::from_be_bytes([high, low]))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn server_frame(opcode: u8, length: usize) -> Vec<u8> {
        let mut frame = Vec::new();
        write_masked(&mut frame, opcode, &vec![b'x'; length], 0);
        // A mask of zeros leaves the payload as it is: drop its bit and its four bytes.
        frame[1] &= 0x7f;
        let header = parse_start(&frame).unwrap().unwrap().header_bytes;
        frame.drain(header..header + 4);
        frame
    }

    #[test]
    fn every_length_class_is_read_back() {
        for length in [0, 1, 125, 126, 127, 65_535, 65_536, 100_000] {
            let frame = server_frame(TEXT, length);
            let start = parse_start(&frame).unwrap().unwrap();
            assert_eq!(start.payload_bytes, length);
            assert_eq!(start.frame_bytes(), frame.len());
            for cut in 0..start.header_bytes {
                assert_eq!(parse_start(&frame[..cut]), Ok(None));
            }
        }
    }

    #[test]
    fn what_a_server_must_not_send_is_refused() {
        assert_eq!(parse_start(&[0xC1, 0]), Err(FrameError::ReservedBit));
        assert_eq!(parse_start(&[0x81, 0x80]), Err(FrameError::Masked));
        assert_eq!(parse_start(&[0x83, 0]), Err(FrameError::ReservedOpcode));
        assert_eq!(parse_start(&[0x08, 0]), Err(FrameError::BadControlFrame));
        assert_eq!(
            parse_start(&[0x88, 126, 0, 200]),
            Err(FrameError::BadControlFrame)
        );
        let mut long = vec![0x82, 127];
        long.extend_from_slice(&u64::MAX.to_be_bytes());
        assert_eq!(parse_start(&long), Err(FrameError::TooLong));
    }

    #[test]
    fn masking_is_undone_by_the_same_key() {
        let mut frame = Vec::new();
        write_masked(&mut frame, TEXT, b"hello, world", 0x1234_5678);
        let key: [u8; 4] = frame[2..6].try_into().unwrap();
        let text: Vec<u8> = frame[6..]
            .iter()
            .enumerate()
            .map(|(place, byte)| byte ^ key[place % 4])
            .collect();
        assert_eq!(text, b"hello, world");
        assert_ne!(&frame[6..], b"hello, world");
    }
}
