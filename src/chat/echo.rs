//! The session of test builds for the conformance suite: every message is answered with itself.

use super::ConnId;
use super::bus::Context;
use super::frame::{Class, Frame, Stamps};
use super::sessions::Sessions;
use crate::protocol::websocket;
use tungstenite::protocol::frame::coding::{Data, OpCode};

impl Sessions {
    /// Answers a text message with itself.
    pub fn echo_text(&mut self, conn: ConnId, text: &str, ctx: &mut Context<'_>) {
        self.heard(conn, ctx);
        self.say_json(conn, text, ctx);
    }

    /// Answers a binary message with itself.
    pub fn echo_binary(&mut self, conn: ConnId, bytes: &[u8], ctx: &mut Context<'_>) {
        self.heard(conn, ctx);
        let bytes = websocket::encode(OpCode::Data(Data::Binary), bytes);
        self.say(
            conn,
            &Frame::encoded(bytes, Class::Durable, Stamps::default()),
            ctx,
        );
    }
}
