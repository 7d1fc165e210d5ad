//! A WebSocket that can also misbehave: blocking, over a plain socket, a frame at a time.
//!
//! What the server sends is checked against RFC 6455: no mask, no reserved bits, no fragments,
//! text that is UTF-8, close codes with a reason.

use super::wait::DEADLINE;
use std::fmt::Write as _;
use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

/// The key of the example in RFC 6455, section 1.3, and its answer.
const KEY: &str = "dGhlIHNhbXBsZSBub25jZQ==";
const ACCEPT: &str = "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=";
/// Any mask serves: it hides nothing here.
const MASK: [u8; 4] = [0x37, 0xfa, 0x21, 0x3d];

pub const CONTINUATION: u8 = 0;
pub const TEXT: u8 = 1;
pub const BINARY: u8 = 2;
pub const CLOSE: u8 = 8;
pub const PING: u8 = 9;
pub const PONG: u8 = 10;
/// The bit that says that a frame is the last of its message.
pub const FIN: u8 = 0x80;

/// What the server sent.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Frame {
    Text(String),
    Pong(Vec<u8>),
}

/// How a stream ended.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum End {
    /// By a close frame.
    Close(Option<u16>, String),
    /// Without one.
    Dropped(String),
    /// Not at all: nothing came in time.
    Silent,
}

/// An HTTP answer.
#[derive(Clone, Debug)]
pub struct Answer {
    pub status: u16,
    pub head: String,
    pub body: String,
}

/// A WebSocket.
#[derive(Debug)]
pub struct Socket {
    stream: TcpStream,
    buffer: Vec<u8>,
}

/// The request that opens a WebSocket, with these further lines.
pub fn upgrade_request(more: &[&str]) -> String {
    let mut request = format!(
        "GET /v1/ws HTTP/1.1\r\nHost: localhost\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
         Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: {KEY}\r\n\
         Sec-WebSocket-Protocol: caffis.chat.v1\r\n"
    );
    for line in more {
        let _ = write!(request, "{line}\r\n");
    }
    request + "\r\n"
}

/// A plain connection.
pub fn connect(address: SocketAddr) -> TcpStream {
    let stream = TcpStream::connect(address).expect("the server listens");
    stream.set_nodelay(true).expect("an option");
    stream.set_write_timeout(Some(DEADLINE)).expect("an option");
    stream
}

/// Sends a request and reads its answer to the end of the connection.
pub fn http(mut stream: TcpStream, request: &str) -> io::Result<Answer> {
    stream.set_read_timeout(Some(DEADLINE))?;
    stream.write_all(request.as_bytes())?;
    read_answer(stream)
}

/// Reads an answer to the end of the connection.
pub fn read_answer(mut stream: TcpStream) -> io::Result<Answer> {
    stream.set_read_timeout(Some(DEADLINE))?;
    let mut bytes = Vec::new();
    stream.read_to_end(&mut bytes)?;
    let text = String::from_utf8(bytes).map_err(io::Error::other)?;
    let no_answer = || io::Error::other(format!("no answer: {text:?}"));
    let (head, body) = text.split_once("\r\n\r\n").ok_or_else(no_answer)?;
    let status = head
        .split(' ')
        .nth(1)
        .and_then(|status| status.parse().ok());
    Ok(Answer {
        status: status.ok_or_else(no_answer)?,
        head: head.to_ascii_lowercase(),
        body: body.to_owned(),
    })
}

/// The bytes of a masked frame whose first byte is this.
pub fn frame(first: u8, payload: &[u8]) -> Vec<u8> {
    let mut bytes = vec![first];
    match payload.len() {
        length @ 0..126 => bytes.push(0x80 | length as u8),
        length @ 126..65_536 => {
            bytes.push(0x80 | 126);
            bytes.extend_from_slice(&(length as u16).to_be_bytes());
        }
        length => {
            bytes.push(0x80 | 127);
            bytes.extend_from_slice(&(length as u64).to_be_bytes());
        }
    }
    bytes.extend_from_slice(&MASK);
    bytes.extend(
        payload
            .iter()
            .zip(MASK.iter().cycle())
            .map(|(byte, mask)| byte ^ mask),
    );
    bytes
}

impl Socket {
    /// Opens a WebSocket.
    pub fn open(address: SocketAddr) -> Socket {
        Socket::upgrade(connect(address), &upgrade_request(&[])).expect("upgraded")
    }

    /// Sends this request and expects it to be upgraded.
    ///
    /// # Errors
    /// What came instead.
    pub fn upgrade(mut stream: TcpStream, request: &str) -> io::Result<Socket> {
        stream.write_all(request.as_bytes())?;
        Socket::upgraded(stream)
    }

    /// Reads the answer to an upgrade.
    ///
    /// # Errors
    /// What came instead.
    pub fn upgraded(stream: TcpStream) -> io::Result<Socket> {
        let mut socket = Socket {
            stream,
            buffer: Vec::new(),
        };
        let deadline = Instant::now() + DEADLINE;
        let head_bytes = loop {
            if let Some(at) = socket
                .buffer
                .windows(4)
                .position(|four| four == b"\r\n\r\n")
            {
                break at + 4;
            }
            if let Err(end) = socket.receive(deadline) {
                let so_far = String::from_utf8_lossy(&socket.buffer);
                return Err(io::Error::other(format!("{end:?} after {so_far:?}")));
            }
        };
        let head: Vec<u8> = socket.buffer.drain(..head_bytes).collect();
        let head = String::from_utf8(head).map_err(io::Error::other)?;
        let lower = head.to_ascii_lowercase();
        let upgraded = head.starts_with("HTTP/1.1 101 ")
            && head.contains(ACCEPT)
            && lower.contains("sec-websocket-protocol: caffis.chat.v1\r\n");
        match upgraded {
            true => Ok(socket),
            false => Err(io::Error::other(head)),
        }
    }

    /// Sends bytes as they are. The server may have closed already, which is no failure here: how
    /// it closed is what reading tells.
    pub fn send_bytes(&mut self, bytes: &[u8]) {
        let _closed = self.stream.write_all(bytes);
    }

    /// Sends one whole frame.
    pub fn send_frame(&mut self, opcode: u8, payload: &[u8]) {
        self.send_bytes(&frame(FIN | opcode, payload));
    }

    /// Sends a text message.
    pub fn send_text(&mut self, text: &str) {
        self.send_frame(TEXT, text.as_bytes());
    }

    /// The next text or pong.
    ///
    /// # Errors
    /// The end of the stream.
    pub fn read(&mut self) -> Result<Frame, End> {
        self.read_within(DEADLINE)
    }

    /// The next text or pong, if it comes within this time.
    ///
    /// # Errors
    /// The end of the stream.
    pub fn read_within(&mut self, time: Duration) -> Result<Frame, End> {
        let deadline = Instant::now() + time;
        loop {
            if let Some(frame) = self.take_frame()? {
                return Ok(frame);
            }
            self.receive(deadline)?;
        }
    }

    /// Reads up to the end, and tells it with the texts before it.
    pub fn read_to_end(&mut self) -> (Vec<String>, End) {
        let mut texts = Vec::new();
        loop {
            match self.read() {
                Ok(Frame::Text(text)) => texts.push(text),
                Ok(Frame::Pong(_)) => (),
                Err(end) => return (texts, end),
            }
        }
    }

    fn receive(&mut self, deadline: Instant) -> Result<(), End> {
        let left = deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Err(End::Silent);
        }
        self.stream.set_read_timeout(Some(left)).expect("an option");
        let mut chunk = [0; 16 << 10];
        match self.stream.read(&mut chunk) {
            Ok(0) => Err(End::Dropped("end of stream".to_owned())),
            Ok(bytes) => {
                self.buffer.extend_from_slice(&chunk[..bytes]);
                Ok(())
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => Ok(()),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Err(End::Silent),
            Err(error) => Err(End::Dropped(error.to_string())),
        }
    }

    fn take_frame(&mut self) -> Result<Option<Frame>, End> {
        let [first, second, rest @ ..] = self.buffer.as_slice() else {
            return Ok(None);
        };
        assert_eq!(first & 0xf0, FIN, "whole frames without reserved bits");
        let (length, header_bytes) = match second {
            0..126 => (usize::from(*second), 2),
            126 => match rest {
                [a, b, ..] => (usize::from(u16::from_be_bytes([*a, *b])), 4),
                _ => return Ok(None),
            },
            127 => match rest.first_chunk::<8>() {
                Some(length) => (u64::from_be_bytes(*length) as usize, 10),
                None => return Ok(None),
            },
            _ => panic!("a server never masks"),
        };
        let opcode = first & 0x0f;
        if self.buffer.len() < header_bytes + length {
            return Ok(None);
        }
        let payload: Vec<u8> = self
            .buffer
            .drain(..header_bytes + length)
            .skip(header_bytes)
            .collect();
        match opcode {
            TEXT => Ok(Some(Frame::Text(
                String::from_utf8(payload).expect("UTF-8"),
            ))),
            PONG => Ok(Some(Frame::Pong(payload))),
            CLOSE => {
                let code = payload.first_chunk().map(|code| u16::from_be_bytes(*code));
                let reason = payload.get(2..).unwrap_or_default().to_vec();
                Err(End::Close(code, String::from_utf8(reason).expect("UTF-8")))
            }
            other => panic!("the server never sends opcode {other}"),
        }
    }
}
