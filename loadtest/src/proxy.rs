//! A line that can be cut: forwards TCP between a node and a backend, until told otherwise.
//!
//! "Unreachable for 60 s" is a black hole: bytes and ends of streams stay where they are on both
//! sides, as when packets are lost, and go on when the line is whole again. A cut resets what is
//! open and everything that comes.
//!
//! Invariants: one thread, one epoll, bounded buffers: who does not read is not read for. A mode set
//! is in force when [`Proxy::set`] returns: not a byte more passes then.

use std::collections::HashMap;
use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, Shutdown, SocketAddr};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread::JoinHandle;
use std::time::Duration;

use mio::net::{TcpListener, TcpStream};
use mio::{Events, Interest, Poll, Token, Waker};
use socket2::{Domain, Protocol, SockAddr, SockRef, Socket, Type};

use crate::limits::{PROXY_BACKLOG, PROXY_BUFFER_BYTES, PROXY_COMMAND_LIMIT};
use crate::world::SetupError;

/// A line of the proxy, by its number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Link(usize);

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Mode {
    #[default]
    Pass,
    /// Open connections are reset, new ones at once.
    Cut,
    /// Nothing passes and nothing ends; new connections are completed by the kernel and wait.
    BlackHole,
}

enum Command {
    Add(SocketAddr, TcpListener, Sender<io::Result<Link>>),
    Set(Link, Mode, Sender<()>),
    End,
}

/// Stops when dropped; every connection through it is reset.
pub struct Proxy {
    commands: Sender<Command>,
    waker: Arc<Waker>,
    thread: Option<JoinHandle<()>>,
}

impl Proxy {
    /// # Errors
    /// When the system gives no epoll instance or thread.
    pub fn start() -> Result<Self, SetupError> {
        let poll = Poll::new()?;
        let waker = Arc::new(Waker::new(poll.registry(), WAKER)?);
        let (commands, receiver) = channel();
        let forwarder = Forwarder {
            poll,
            commands: receiver,
            links: Vec::new(),
            pairs: HashMap::new(),
            next_pair: 0,
        };
        let thread = std::thread::Builder::new()
            .name("proxy".to_owned())
            .spawn(move || forwarder.run())?;
        Ok(Self {
            commands,
            waker,
            thread: Some(thread),
        })
    }

    /// Opens a line to `upstream`. Returns it and the address to connect to instead.
    ///
    /// # Errors
    /// When no port is free.
    pub fn link(&self, upstream: SocketAddr) -> Result<(Link, SocketAddr), SetupError> {
        let listener = listen()?;
        let address = listener.local_addr()?;
        let (sender, receiver) = channel();
        self.tell(Command::Add(upstream, listener, sender))?;
        let link = receiver
            .recv_timeout(PROXY_COMMAND_LIMIT)
            .map_err(|_| gone())??;
        Ok((link, address))
    }

    /// # Errors
    /// When the proxy's thread is gone.
    pub fn set(&self, link: Link, mode: Mode) -> Result<(), SetupError> {
        let (sender, receiver) = channel();
        self.tell(Command::Set(link, mode, sender))?;
        receiver
            .recv_timeout(PROXY_COMMAND_LIMIT)
            .map_err(|_| gone())
    }

    fn tell(&self, command: Command) -> Result<(), SetupError> {
        self.commands.send(command).map_err(|_| gone())?;
        self.waker.wake()?;
        Ok(())
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        let is_told = self.tell(Command::End).is_ok();
        if let Some(thread) = self.thread.take()
            && is_told
        {
            let _ = thread.join();
        }
    }
}

fn gone() -> SetupError {
    SetupError("the proxy's thread does not answer".to_owned())
}

/// A port below the ephemeral range: while a backend is down, no client can take it.
fn listen() -> Result<TcpListener, SetupError> {
    let address = crate::server::free_address()?;
    let socket = Socket::new(Domain::IPV4, Type::STREAM, Some(Protocol::TCP))?;
    socket.set_nonblocking(true)?;
    socket.set_reuse_address(true)?;
    socket.bind(&SockAddr::from(SocketAddr::from((
        Ipv4Addr::LOCALHOST,
        address.port(),
    ))))?;
    socket.listen(PROXY_BACKLOG)?;
    Ok(TcpListener::from_std(socket.into()))
}

const WAKER: Token = Token(usize::MAX);
/// Tokens below are listeners; a pair of connections has two each from here on.
const FIRST_PAIR: usize = 1 << 16;

struct LinkState {
    upstream: SocketAddr,
    listener: TcpListener,
    mode: Mode,
}

/// One end of a forwarded connection.
struct End {
    stream: TcpStream,
    is_connected: bool,
    /// Read from here, to be written to the other end.
    buffer: Vec<u8>,
    /// Nothing more comes from here.
    is_ended: bool,
    /// The other end was told so.
    is_end_passed: bool,
}

impl End {
    fn new(stream: TcpStream, is_connected: bool) -> Self {
        Self {
            stream,
            is_connected,
            buffer: Vec::new(),
            is_ended: false,
            is_end_passed: false,
        }
    }
}

struct Pair {
    link: Link,
    /// The client's and the upstream's.
    ends: [End; 2],
}

struct Forwarder {
    poll: Poll,
    commands: Receiver<Command>,
    links: Vec<LinkState>,
    pairs: HashMap<usize, Pair>,
    next_pair: usize,
}

impl Forwarder {
    fn run(mut self) {
        let mut events = Events::with_capacity(1024);
        loop {
            match self.poll.poll(&mut events, Some(Duration::from_secs(1))) {
                Ok(()) => {}
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(_) => return,
            }
            // First the commands: what they forbid must not pass any more.
            while let Ok(command) = self.commands.try_recv() {
                match command {
                    Command::Add(upstream, listener, answer) => {
                        let _ = answer.send(self.add(upstream, listener));
                    }
                    Command::Set(link, mode, answer) => {
                        self.set(link, mode);
                        let _ = answer.send(());
                    }
                    Command::End => {
                        for pair in std::mem::take(&mut self.pairs).into_values() {
                            reset(pair);
                        }
                        return;
                    }
                }
            }
            for event in &events {
                match event.token() {
                    WAKER => {}
                    Token(token) if token >= FIRST_PAIR => self.pump((token - FIRST_PAIR) / 2),
                    Token(link) => self.accept(Link(link)),
                }
            }
        }
    }

    fn add(&mut self, upstream: SocketAddr, mut listener: TcpListener) -> io::Result<Link> {
        let link = Link(self.links.len());
        if link.0 >= FIRST_PAIR {
            return Err(io::ErrorKind::QuotaExceeded.into());
        }
        self.poll
            .registry()
            .register(&mut listener, Token(link.0), Interest::READABLE)?;
        self.links.push(LinkState {
            upstream,
            listener,
            mode: Mode::Pass,
        });
        Ok(link)
    }

    fn set(&mut self, link: Link, mode: Mode) {
        let Some(state) = self.links.get_mut(link.0) else {
            return;
        };
        state.mode = mode;
        let of_link = |(number, pair): (&usize, &Pair)| (pair.link == link).then_some(*number);
        let pairs: Vec<usize> = self.pairs.iter().filter_map(of_link).collect();
        for number in pairs {
            match mode {
                // Edges that came meanwhile were not acted on.
                Mode::Pass => self.pump(number),
                Mode::Cut => {
                    if let Some(pair) = self.pairs.remove(&number) {
                        reset(pair);
                    }
                }
                Mode::BlackHole => {}
            }
        }
        self.accept(link);
    }

    fn accept(&mut self, link: Link) {
        loop {
            let Some(state) = self.links.get(link.0) else {
                return;
            };
            if state.mode == Mode::BlackHole {
                return;
            }
            let (client, upstream) = match state.listener.accept() {
                Ok((client, _)) => (client, state.upstream),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                // Nobody waits; or no descriptor is left, then the next who comes tries again.
                Err(_) => return,
            };
            if state.mode == Mode::Cut {
                reset_stream(&client);
                continue;
            }
            match TcpStream::connect(upstream) {
                Ok(server) => self.begin(link, client, server),
                Err(_) => reset_stream(&client),
            }
        }
    }

    fn begin(&mut self, link: Link, client: TcpStream, server: TcpStream) {
        let number = self.next_pair;
        self.next_pair += 1;
        let mut pair = Pair {
            link,
            ends: [End::new(client, true), End::new(server, false)],
        };
        for (side, end) in pair.ends.iter_mut().enumerate() {
            let _ = end.stream.set_nodelay(true);
            let token = Token(FIRST_PAIR + number * 2 + side);
            let interest = Interest::READABLE | Interest::WRITABLE;
            if self
                .poll
                .registry()
                .register(&mut end.stream, token, interest)
                .is_err()
            {
                reset(pair);
                return;
            }
        }
        self.pairs.insert(number, pair);
    }

    /// Moves what can be moved, both ways, until neither side can go on.
    fn pump(&mut self, number: usize) {
        let Some(pair) = self.pairs.get_mut(&number) else {
            return;
        };
        if self.links.get(pair.link.0).map(|link| link.mode) != Some(Mode::Pass) {
            return;
        }
        let moved = connect(&mut pair.ends[1]).and_then(|is_connected| {
            if is_connected {
                let [client, server] = &mut pair.ends;
                forward(client, server)?;
                forward(server, client)?;
            }
            Ok(())
        });
        let is_over = pair.ends.iter().all(|end| end.is_end_passed);
        if (moved.is_err() || is_over)
            && let Some(pair) = self.pairs.remove(&number)
            && moved.is_err()
        {
            reset(pair);
        }
    }
}

/// Whether the upstream's connection is made.
fn connect(end: &mut End) -> io::Result<bool> {
    if end.is_connected {
        return Ok(true);
    }
    if let Some(error) = end.stream.take_error()? {
        return Err(error);
    }
    end.is_connected = end.stream.peer_addr().is_ok();
    Ok(end.is_connected)
}

fn forward(from: &mut End, to: &mut End) -> io::Result<()> {
    loop {
        let mut is_moved = false;
        if !from.is_ended && from.buffer.len() < PROXY_BUFFER_BYTES {
            let mut chunk = [0; 16 << 10];
            match from.stream.read(&mut chunk) {
                Ok(0) => from.is_ended = true,
                Ok(count) => {
                    from.buffer.extend_from_slice(&chunk[..count]);
                    is_moved = true;
                }
                Err(error) if is_patience(&error) => {}
                Err(error) => return Err(error),
            }
        }
        if !from.buffer.is_empty() {
            match to.stream.write(&from.buffer) {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(count) => {
                    from.buffer.drain(..count);
                    is_moved = true;
                }
                Err(error) if is_patience(&error) => {}
                Err(error) => return Err(error),
            }
        }
        if from.is_ended && from.buffer.is_empty() && !from.is_end_passed {
            from.is_end_passed = true;
            // The other end may be gone already.
            let _ = to.stream.shutdown(Shutdown::Write);
        }
        if !is_moved {
            return Ok(());
        }
    }
}

fn is_patience(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted | io::ErrorKind::NotConnected
    )
}

fn reset(pair: Pair) {
    for end in &pair.ends {
        reset_stream(&end.stream);
    }
}

fn reset_stream(stream: &TcpStream) {
    let _ = SockRef::from(stream).set_linger(Some(Duration::ZERO));
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::{TcpListener as StdListener, TcpStream as StdStream};

    const LIMIT: Duration = Duration::from_secs(20);

    /// A proxy before a listener, the line, and a connected pair.
    fn line() -> (Proxy, Link, StdListener, StdStream, StdStream, SocketAddr) {
        let upstream = StdListener::bind("127.0.0.1:0").unwrap();
        let proxy = Proxy::start().unwrap();
        let (link, address) = proxy.link(upstream.local_addr().unwrap()).unwrap();
        let client = StdStream::connect(address).unwrap();
        let (server, _) = upstream.accept().unwrap();
        for stream in [&client, &server] {
            stream.set_read_timeout(Some(LIMIT)).unwrap();
        }
        (proxy, link, upstream, client, server, address)
    }

    fn passes(from: &mut StdStream, to: &mut StdStream, bytes: &[u8]) {
        from.write_all(bytes).unwrap();
        let mut got = vec![0; bytes.len()];
        to.read_exact(&mut got).unwrap();
        assert_eq!(got, bytes);
    }

    fn is_silent(stream: &mut StdStream) -> bool {
        stream
            .set_read_timeout(Some(Duration::from_millis(100)))
            .unwrap();
        let got = stream.read(&mut [0; 1]);
        stream.set_read_timeout(Some(LIMIT)).unwrap();
        got.is_err_and(|error| error.kind() == io::ErrorKind::WouldBlock)
    }

    #[test]
    fn bytes_pass_both_ways_and_ends_are_passed_on() {
        let (_proxy, _, _upstream, mut client, mut server, _) = line();
        passes(&mut client, &mut server, b"ask");
        passes(&mut server, &mut client, b"answer");
        client.shutdown(Shutdown::Write).unwrap();
        assert_eq!(server.read(&mut [0; 1]).unwrap(), 0);
        passes(&mut server, &mut client, b"a last word");
        drop(server);
        assert_eq!(client.read(&mut [0; 1]).unwrap(), 0);
    }

    #[test]
    fn more_than_the_buffers_hold_passes_whole() {
        let (_proxy, _, _upstream, mut client, mut server, _) = line();
        let sent: Vec<u8> = (0..8_u32 << 20).map(|byte| (byte % 251) as u8).collect();
        let expected = sent.clone();
        let writer = std::thread::spawn(move || client.write_all(&sent).unwrap());
        let mut got = vec![0; expected.len()];
        server.read_exact(&mut got).unwrap();
        assert!(got == expected);
        writer.join().unwrap();
    }

    #[test]
    fn a_cut_resets_what_is_open_and_what_comes() {
        let (proxy, link, _upstream, mut client, mut server, address) = line();
        passes(&mut client, &mut server, b"before");
        proxy.set(link, Mode::Cut).unwrap();
        for stream in [&mut client, &mut server] {
            let error = stream.read(&mut [0; 1]).unwrap_err();
            assert_eq!(error.kind(), io::ErrorKind::ConnectionReset);
        }
        // The reset may show while connecting already, or at the first read.
        let late = StdStream::connect(address).and_then(|mut late| late.read(&mut [0; 1]));
        assert!(late.is_err(), "{late:?}");
    }

    #[test]
    fn a_black_hole_keeps_all_that_is_sent_until_the_line_is_whole_again() {
        let (proxy, link, upstream, mut client, mut server, address) = line();
        proxy.set(link, Mode::BlackHole).unwrap();
        client.write_all(b"kept").unwrap();
        client.shutdown(Shutdown::Write).unwrap();
        assert!(is_silent(&mut server) && is_silent(&mut client));
        let mut late = StdStream::connect(address).unwrap();
        late.write_all(b"late").unwrap();
        late.set_read_timeout(Some(LIMIT)).unwrap();
        upstream.set_nonblocking(true).unwrap();
        assert!(is_silent(&mut late) && upstream.accept().is_err());
        upstream.set_nonblocking(false).unwrap();

        proxy.set(link, Mode::Pass).unwrap();
        let mut got = Vec::new();
        server.read_to_end(&mut got).unwrap();
        assert_eq!(got, b"kept");
        let (mut second, _) = upstream.accept().unwrap();
        let mut word = [0; 4];
        second.read_exact(&mut word).unwrap();
        assert_eq!(&word, b"late");
    }

    #[test]
    fn an_upstream_that_is_not_there_is_a_reset() {
        let proxy = Proxy::start().unwrap();
        let nobody = crate::server::free_address().unwrap();
        let (_, address) = proxy.link(nobody).unwrap();
        let got = StdStream::connect(address).and_then(|mut client| {
            client.set_read_timeout(Some(LIMIT))?;
            client.read(&mut [0; 1])
        });
        let error = got.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::ConnectionReset);
    }

    #[test]
    fn lines_are_independent() {
        let (proxy, link, _upstream, mut client, mut server, _) = line();
        let other = StdListener::bind("127.0.0.1:0").unwrap();
        let (_, address) = proxy.link(other.local_addr().unwrap()).unwrap();
        proxy.set(link, Mode::BlackHole).unwrap();
        let mut through = StdStream::connect(address).unwrap();
        let (mut end, _) = other.accept().unwrap();
        passes(&mut through, &mut end, b"open");
        proxy.set(link, Mode::Pass).unwrap();
        passes(&mut client, &mut server, b"again");
    }
}
