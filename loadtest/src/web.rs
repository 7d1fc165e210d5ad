//! Requests over HTTP beside the sockets: a few threads, a connection for each request. They are few and small; the
//! sockets must not wait for them.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

/// Requests under way at once.
const THREADS: usize = 4;
/// Longest wait for a connection, and for each part of an answer.
const WAIT_MAX: Duration = Duration::from_secs(10);
/// Largest answer that is read, bytes.
const ANSWER_BYTES_MAX: u64 = 4 << 20;

/// A request.
#[derive(Clone, Debug, Default)]
pub struct Request {
    /// Given back with the answer.
    pub tag: u32,
    pub method: &'static str,
    /// With the query.
    pub path: String,
    pub token: Option<String>,
    pub idempotency_key: Option<String>,
    pub content_type: String,
    pub body: Vec<u8>,
}

/// What came of it: status and body, or why there is none, which says nothing about what was done.
pub struct Answer {
    pub tag: u32,
    pub result: Result<(u16, Vec<u8>), String>,
}

/// The way to the threads and back; they end with it.
pub struct Web {
    jobs: Sender<(SocketAddr, Request)>,
    answers: Receiver<Answer>,
}

impl Web {
    pub fn new() -> Self {
        let (jobs, waiting) = channel::<(SocketAddr, Request)>();
        let (done, answers) = channel();
        let waiting = Arc::new(Mutex::new(waiting));
        for _ in 0..THREADS {
            let (waiting, done) = (waiting.clone(), done.clone());
            std::thread::spawn(move || {
                loop {
                    let job = waiting
                        .lock()
                        .unwrap_or_else(PoisonError::into_inner)
                        .recv();
                    let Ok((to, request)) = job else { return };
                    let result = ask(to, &request).map_err(|error| error.to_string());
                    let tag = request.tag;
                    if done.send(Answer { tag, result }).is_err() {
                        return;
                    }
                }
            });
        }
        Self { jobs, answers }
    }

    /// Asks; whether anybody is there to do it.
    pub fn ask(&self, to: SocketAddr, request: Request) -> bool {
        self.jobs.send((to, request)).is_ok()
    }

    /// An answer, if one is there.
    pub fn answer(&self) -> Option<Answer> {
        self.answers.try_recv().ok()
    }
}

impl Default for Web {
    fn default() -> Self {
        Self::new()
    }
}

fn ask(to: SocketAddr, request: &Request) -> std::io::Result<(u16, Vec<u8>)> {
    let mut stream = TcpStream::connect_timeout(&to, WAIT_MAX)?;
    stream.set_read_timeout(Some(WAIT_MAX))?;
    stream.set_write_timeout(Some(WAIT_MAX))?;
    stream.set_nodelay(true)?;
    stream.write_all(&request.bytes(to))?;
    let mut bytes = Vec::new();
    stream.take(ANSWER_BYTES_MAX).read_to_end(&mut bytes)?;
    parse(&bytes).ok_or_else(|| std::io::Error::other("no whole answer"))
}

impl Request {
    fn bytes(&self, to: SocketAddr) -> Vec<u8> {
        let Self {
            method,
            path,
            content_type,
            body,
            ..
        } = self;
        let mut head = format!(
            "{method} {path} HTTP/1.1\r\nhost: {to}\r\nconnection: close\r\ncontent-length: {}\r\n",
            body.len()
        );
        if let Some(token) = &self.token {
            head.push_str(&format!("authorization: Bearer {token}\r\n"));
        }
        if let Some(key) = &self.idempotency_key {
            head.push_str(&format!("idempotency-key: {key}\r\n"));
        }
        if !body.is_empty() {
            head.push_str(&format!("content-type: {content_type}\r\n"));
        }
        head.push_str("\r\n");
        let mut bytes = head.into_bytes();
        bytes.extend_from_slice(body);
        bytes
    }
}

/// Status and body of a whole answer whose connection has ended.
fn parse(bytes: &[u8]) -> Option<(u16, Vec<u8>)> {
    let end = bytes.windows(4).position(|four| four == b"\r\n\r\n")?;
    let head = std::str::from_utf8(bytes.get(..end)?).ok()?;
    let body = bytes.get(end + 4..)?;
    let mut lines = head.split("\r\n");
    let status = lines.next()?.split(' ').nth(1)?.parse().ok()?;
    for line in lines {
        let (name, value) = line.split_once(':')?;
        let name = name.to_ascii_lowercase();
        if name == "content-length" && value.trim().parse() != Ok(body.len()) {
            return None;
        }
        // The server is asked for nothing that it would send in chunks.
        if name == "transfer-encoding" {
            return None;
        }
    }
    Some((status, body.to_vec()))
}

/// A form with these fields and, last, a file.
pub fn form<'a>(
    fields: impl Iterator<Item = (&'a str, &'a str)>,
    name: &str,
    content_type: &str,
    bytes: &[u8],
) -> (String, Vec<u8>) {
    let boundary = "caffis-loadtest-4f1d2c";
    let mut body = Vec::with_capacity(bytes.len() + 1024);
    for (field, value) in fields {
        let part = format!(
            "--{boundary}\r\ncontent-disposition: form-data; name=\"{field}\"\r\n\r\n{value}\r\n"
        );
        body.extend_from_slice(part.as_bytes());
    }
    let part = format!(
        "--{boundary}\r\ncontent-disposition: form-data; name=\"file\"; filename=\"{name}\"\r\n\
         content-type: {content_type}\r\n\r\n"
    );
    body.extend_from_slice(part.as_bytes());
    body.extend_from_slice(bytes);
    body.extend_from_slice(format!("\r\n--{boundary}--\r\n").as_bytes());
    (format!("multipart/form-data; boundary={boundary}"), body)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_is_taken_whole_or_not_at_all() {
        let whole = b"HTTP/1.1 201 Created\r\nContent-Length: 2\r\nx: y\r\n\r\n{}";
        assert_eq!(parse(whole), Some((201, b"{}".to_vec())));
        for (cut, _) in whole.iter().enumerate().skip(1) {
            assert_eq!(parse(&whole[..cut]), None, "{cut}");
        }
        assert_eq!(
            parse(b"HTTP/1.1 204 No Content\r\n\r\n"),
            Some((204, Vec::new()))
        );
        assert_eq!(
            parse(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n"),
            None
        );
    }

    #[test]
    fn a_form_ends_with_its_file() {
        let (content_type, body) = form(
            [("key", "k")].into_iter(),
            "a.pdf",
            "application/pdf",
            b"%PDF",
        );
        let body = String::from_utf8(body).unwrap();
        assert!(content_type.ends_with("caffis-loadtest-4f1d2c"));
        assert!(body.find("name=\"key\"").unwrap() < body.find("name=\"file\"").unwrap());
        assert!(body.contains("\r\n\r\n%PDF\r\n--caffis-loadtest-4f1d2c--"));
    }
}
