//! Asks a running node whether it can take users: what a container's health check runs, so that
//! the image needs no HTTP client.
//!
//! Invariant: an answer, or its absence, within a few seconds.

use std::io::{self, Read, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream};
use std::time::Duration;

/// Longest wait for each of connect, write and read.
const WAIT_MAX: Duration = Duration::from_secs(2);
/// The answer is looked at up to here, bytes.
const ANSWER_BYTES_MAX: u64 = 4096;

/// Asks the node that listens there; gives what it said.
///
/// # Errors
/// What it said instead of `ready`, or why it said nothing.
pub fn ready(listen: SocketAddr) -> Result<String, String> {
    let answer = ask(reachable(listen)).map_err(|error| format!("{listen}: {error}"))?;
    let said = answer.split("\r\n\r\n").nth(1).unwrap_or("").trim();
    let status = answer.split(' ').nth(1).unwrap_or("");
    if status == "200" {
        Ok(said.to_owned())
    } else {
        Err(format!("status {status}: {said}"))
    }
}

/// Who listens on all addresses is asked on loopback.
fn reachable(listen: SocketAddr) -> SocketAddr {
    let ip = match listen.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => IpAddr::V4(Ipv4Addr::LOCALHOST),
        IpAddr::V6(ip) if ip.is_unspecified() => IpAddr::V6(Ipv6Addr::LOCALHOST),
        ip => ip,
    };
    SocketAddr::new(ip, listen.port())
}

fn ask(address: SocketAddr) -> io::Result<String> {
    let mut stream = TcpStream::connect_timeout(&address, WAIT_MAX)?;
    stream.set_read_timeout(Some(WAIT_MAX))?;
    stream.set_write_timeout(Some(WAIT_MAX))?;
    stream.write_all(b"GET /readyz HTTP/1.1\r\nhost: health\r\nconnection: close\r\n\r\n")?;
    let mut answer = Vec::new();
    stream.take(ANSWER_BYTES_MAX).read_to_end(&mut answer)?;
    Ok(String::from_utf8_lossy(&answer).into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_listens_everywhere_is_asked_on_loopback() {
        for (listen, asked) in [
            ("0.0.0.0:8080", "127.0.0.1:8080"),
            ("[::]:8080", "[::1]:8080"),
            ("10.1.2.3:80", "10.1.2.3:80"),
        ] {
            let listen: SocketAddr = listen.parse().expect("an address");
            assert_eq!(reachable(listen).to_string(), asked);
        }
    }
}
