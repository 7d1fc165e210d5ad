//! WebSocket framing (RFC 6455, section 5), over our own buffers.

use tungstenite::protocol::frame::FrameHeader;
use tungstenite::protocol::frame::coding::{Data, OpCode};

/// A whole unfragmented, unmasked text frame of this payload.
pub fn encode_text(text: &str) -> Box<[u8]> {
    encode(OpCode::Data(Data::Text), text.as_bytes())
}

/// A whole unfragmented, unmasked frame.
pub fn encode(opcode: OpCode, payload: &[u8]) -> Box<[u8]> {
    let header = FrameHeader {
        opcode,
        ..FrameHeader::default()
    };
    let length = payload.len() as u64;
    let mut bytes = Vec::with_capacity(header.len(length) + payload.len());
    header
        .format(length, &mut bytes)
        .expect("writing to a vector cannot fail");
    bytes.extend_from_slice(payload);
    bytes.into_boxed_slice()
}
