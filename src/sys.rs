//! The only unsafe code: a shard's io_uring and the few socket calls that std does not offer.
//!
//! Invariants: whatever the kernel is told to write to or read from belongs to [`Ring`] and lives
//! until the kernel was told to forget it; a descriptor that the kernel hands out becomes an
//! [`OwnedFd`] exactly once. Closing a descriptor that a request still names harms no memory (the
//! kernel holds the file), but its number could be reused before the request is submitted:
//! [`crate::edge`] closes only when nothing refers to it.
//!
//! The reason: one system call takes in what all sockets of a shard received, without a buffer
//! per connection.

#![allow(unsafe_code)]
#![allow(
    clippy::disallowed_methods,
    clippy::disallowed_types,
    clippy::disallowed_macros
)]

use io_uring::types::{BufRingEntry, Fd, SubmitArgs, Timespec};
use io_uring::{IoUring, cqueue, opcode, squeue};
use std::alloc::{Layout, alloc_zeroed, dealloc, handle_alloc_error};
use std::collections::VecDeque;
use std::fs::File;
use std::io::{self, Write};
use std::net::{SocketAddr, TcpListener};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::ptr::NonNull;
use std::sync::atomic::{AtomicU16, Ordering};
use std::time::Duration;

/// Sizes of a [`Ring`].
#[derive(Clone, Copy, Debug)]
pub struct RingSizes {
    /// Requests that may wait to be submitted by one system call; a power of two.
    pub submissions: u32,
    /// Completions that fit; the kernel keeps further ones aside. A power of two.
    pub completions: u32,
    /// Receive buffers; a power of two.
    pub buffers: u16,
    /// Bytes of each.
    pub buffer_bytes: u32,
}

impl RingSizes {
    /// Memory that the kernel locks for it, bytes, rounded up to whole pages: submission entries
    /// of 64 bytes and their index of 4, completions of 16, buffer entries of 16, two headers.
    pub const fn locked_bytes(&self) -> usize {
        let submissions = pages(self.submissions as usize * 64);
        let rings = pages(self.submissions as usize * 4 + self.completions as usize * 16 + PAGE);
        submissions + rings + pages(self.buffers as usize * 16)
    }
}

const PAGE: usize = 4096;

const fn pages(bytes: usize) -> usize {
    bytes.div_ceil(PAGE) * PAGE
}

/// The name a request carries, given back with its completion.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Token {
    /// A place in the slab of connections.
    pub index: u32,
    /// How often the place was used before; its low 28 bits come back.
    pub generation: u32,
}

impl Token {
    /// The part of a generation that comes back.
    pub const GENERATION_MASK: u32 = (1 << 28) - 1;
}

/// What the kernel tells.
#[derive(Debug)]
pub enum Event {
    /// [`Ring::accept`]: a connection, or why there is none.
    Accepted {
        /// The connection.
        result: io::Result<OwnedFd>,
        /// Whether more will come without asking again.
        more: bool,
    },
    /// [`Ring::receive`] or [`Ring::receive_once`]: bytes, or `None` at the end of the stream.
    Received {
        /// As given with the request.
        token: Token,
        /// To be given back by [`Ring::give_back`].
        result: io::Result<Option<Lent>>,
        /// Whether more will come without asking again.
        more: bool,
    },
    /// [`Ring::poll_writable`]: there is room, or the socket is broken.
    Writable {
        /// As given with the request.
        token: Token,
    },
    /// [`Ring::watch`]: somebody rang. If not `more`, ask again.
    Rung {
        /// Whether more will come without asking again.
        more: bool,
    },
    /// [`Ring::timer`]: the time has passed.
    Timer,
}

/// A receive buffer that is ours until it is given back.
#[derive(Debug)]
#[must_use = "a buffer that is not given back is lost to the ring"]
pub struct Lent {
    id: u16,
    bytes: u32,
}

impl Lent {
    /// How many bytes were received into it, at least one.
    pub fn bytes(&self) -> usize {
        self.bytes as usize
    }
}

const ACCEPT: u64 = 1 << 60;
const RECEIVE: u64 = 2 << 60;
const WRITABLE: u64 = 3 << 60;
const WATCH: u64 = 4 << 60;
const TIMER: u64 = 5 << 60;
const BUFFER_GROUP: u16 = 0;

fn user_data(operation: u64, token: Token) -> u64 {
    let generation = token.generation & Token::GENERATION_MASK;
    operation | u64::from(generation) << 32 | u64::from(token.index)
}

/// One shard's ring, with its receive buffers.
///
/// Built and used on one thread. The fields are dropped in this order: first the ring, then what
/// it points at.
pub struct Ring {
    ring: IoUring,
    /// Requests that did not fit into the submission queue; at most three per connection.
    backlog: VecDeque<squeue::Entry>,
    buffers: Buffers,
    /// What the one timer points at until it is submitted.
    timer: Box<Timespec>,
    timer_armed: bool,
}

impl std::fmt::Debug for Ring {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("Ring").finish_non_exhaustive()
    }
}

impl Ring {
    /// A ring for the thread that calls.
    ///
    /// # Errors
    /// ENOMEM: not enough memory may be locked. ENOSYS, EPERM: io_uring is not to be had.
    pub fn new(sizes: RingSizes) -> io::Result<Ring> {
        assert!(sizes.buffers.is_power_of_two(), "buffers: a power of two");
        let ring = IoUring::builder()
            .dontfork()
            .setup_cqsize(sizes.completions)
            // Completions are made when this thread enters the kernel anyway: no interrupts.
            // Not DEFER_TASKRUN: glommio waits for this ring by polling its descriptor, which
            // then would never become readable.
            .setup_coop_taskrun()
            .setup_single_issuer()
            .setup_submit_all()
            .build(sizes.submissions)?;
        let mut buffers = Buffers::new(sizes.buffers, sizes.buffer_bytes);
        // SAFETY: the entries are page-aligned, as many as said, and live until after the ring:
        // `Drop` unregisters them before `buffers` is dropped.
        unsafe {
            ring.submitter().register_buf_ring_with_flags(
                buffers.entries.as_ptr() as u64,
                sizes.buffers,
                BUFFER_GROUP,
                0,
            )?;
        }
        for id in 0..sizes.buffers {
            buffers.provide(id);
        }
        Ok(Ring {
            ring,
            backlog: VecDeque::new(),
            buffers,
            timer: Box::new(Timespec::new()),
            timer_armed: false,
        })
    }

    /// Asks for connections of this listener, until told otherwise.
    pub fn accept(&mut self, listener: &TcpListener) {
        let entry = opcode::AcceptMulti::new(Fd(listener.as_raw_fd()))
            .flags(libc::SOCK_CLOEXEC)
            .build();
        self.push(entry.user_data(ACCEPT));
    }

    /// Asks for everything that a socket receives, until told otherwise. The socket must be a
    /// blocking one: the kernel answers EAGAIN for others instead of waiting.
    pub fn receive(&mut self, socket: BorrowedFd<'_>, token: Token) {
        let entry = opcode::RecvMulti::new(Fd(socket.as_raw_fd()), BUFFER_GROUP).build();
        self.push(entry.user_data(user_data(RECEIVE, token)));
    }

    /// Asks for what a socket receives next, once: after the answer nothing refers to it.
    pub fn receive_once(&mut self, socket: BorrowedFd<'_>, token: Token) {
        let entry = opcode::Recv::new(Fd(socket.as_raw_fd()), std::ptr::null_mut(), 0)
            .buf_group(BUFFER_GROUP)
            .build()
            .flags(squeue::Flags::BUFFER_SELECT);
        self.push(entry.user_data(user_data(RECEIVE, token)));
    }

    /// Asks to be told once when a socket takes bytes again, or is broken.
    pub fn poll_writable(&mut self, socket: BorrowedFd<'_>, token: Token) {
        let entry = opcode::PollAdd::new(Fd(socket.as_raw_fd()), libc::POLLOUT as u32).build();
        self.push(entry.user_data(user_data(WRITABLE, token)));
    }

    /// Asks to be told whenever an event descriptor is written to. It need not be read: each
    /// write wakes.
    pub fn watch(&mut self, event: &EventFd) {
        let entry = opcode::PollAdd::new(Fd(event.0.as_raw_fd()), libc::POLLIN as u32)
            .multi(true)
            .build();
        self.push(entry.user_data(WATCH));
    }

    /// Asks to be told after a time, unless a timer is set already.
    pub fn timer(&mut self, after: Duration) {
        if self.timer_armed {
            return;
        }
        self.timer_armed = true;
        *self.timer = Timespec::from(after);
        let entry = opcode::Timeout::new(&raw const *self.timer).build();
        self.push(entry.user_data(TIMER));
    }

    fn push(&mut self, entry: squeue::Entry) {
        // SAFETY: the entries made above name no memory but the timer's, which lives as long as
        // the ring and is not changed while it is armed, and registered buffers.
        if self.backlog.is_empty() && unsafe { self.ring.submission().push(&entry) }.is_ok() {
            return;
        }
        self.backlog.push_back(entry);
        // What the kernel does not take now it takes at the next submit.
        let _later = self.submit();
    }

    fn refill(&mut self) {
        while let Some(entry) = self.backlog.front() {
            // SAFETY: as in `push`.
            if unsafe { self.ring.submission().push(entry) }.is_err() {
                return;
            }
            self.backlog.pop_front();
        }
    }

    /// Whether requests wait to be submitted.
    pub fn has_requests(&mut self) -> bool {
        !self.backlog.is_empty() || !self.ring.submission().is_empty()
    }

    /// Hands the waiting requests to the kernel.
    ///
    /// # Errors
    /// Those of `io_uring_enter`, but for the ones that pass by themselves.
    pub fn submit(&mut self) -> io::Result<()> {
        loop {
            self.refill();
            passing(self.ring.submit())?;
            if self.backlog.is_empty() || !self.ring.submission().is_empty() {
                return Ok(());
            }
        }
    }

    /// Hands over the waiting requests and waits for so many completions, or for a time.
    ///
    /// # Errors
    /// As [`Ring::submit`].
    pub fn wait(&mut self, completions: usize, timeout: Duration) -> io::Result<()> {
        self.refill();
        let timeout = Timespec::from(timeout);
        let args = SubmitArgs::new().timespec(&timeout);
        passing(self.ring.submitter().submit_with_args(completions, &args))
    }

    /// The descriptor that becomes readable when there are events.
    ///
    /// # Errors
    /// EMFILE.
    pub fn descriptor(&self) -> io::Result<OwnedFd> {
        // SAFETY: the ring is open, and the borrow ends with this call.
        unsafe { BorrowedFd::borrow_raw(self.ring.as_raw_fd()) }.try_clone_to_owned()
    }

    /// Whether there is an event. Does not enter the kernel.
    pub fn has_events(&mut self) -> bool {
        !self.ring.completion().is_empty() || self.ring.submission().cq_overflow()
    }

    /// The next event. Does not enter the kernel.
    pub fn next_event(&mut self) -> Option<Event> {
        loop {
            let entry = self.ring.completion().next()?;
            if let Some(event) = self.event(&entry) {
                return Some(event);
            }
        }
    }

    fn event(&mut self, entry: &cqueue::Entry) -> Option<Event> {
        let (data, result, more) = (
            entry.user_data(),
            entry.result(),
            cqueue::more(entry.flags()),
        );
        let token = Token {
            index: data as u32,
            generation: (data >> 32) as u32 & Token::GENERATION_MASK,
        };
        match data & (0xf << 60) {
            ACCEPT => {
                let result = if result < 0 {
                    Err(io::Error::from_raw_os_error(-result))
                } else {
                    // SAFETY: the kernel made this descriptor for us, and told so once.
                    Ok(unsafe { OwnedFd::from_raw_fd(result) })
                };
                Some(Event::Accepted { result, more })
            }
            RECEIVE => {
                let buffer = cqueue::buffer_select(entry.flags());
                let result = match (result, buffer) {
                    (1.., Some(id)) => Ok(Some(Lent {
                        id,
                        bytes: result as u32,
                    })),
                    (_, buffer) => {
                        if let Some(id) = buffer {
                            self.buffers.provide(id);
                        }
                        if result < 0 {
                            Err(io::Error::from_raw_os_error(-result))
                        } else {
                            Ok(None)
                        }
                    }
                };
                Some(Event::Received {
                    token,
                    result,
                    more,
                })
            }
            WRITABLE => Some(Event::Writable { token }),
            WATCH => Some(Event::Rung { more }),
            TIMER => {
                self.timer_armed = false;
                Some(Event::Timer)
            }
            _ => None,
        }
    }

    /// The bytes received.
    pub fn bytes(&mut self, lent: &Lent) -> &mut [u8] {
        let start = usize::from(lent.id) * self.buffers.bytes as usize;
        assert!(lent.bytes <= self.buffers.bytes && lent.id < self.buffers.count);
        // SAFETY: the buffer lies within the allocation, was initialised at the start, and is
        // ours: the kernel gave it with a completion and gets it back by `give_back`, which takes
        // `lent`. The borrow of self keeps it from being given back meanwhile.
        unsafe {
            let first = self.buffers.memory.as_ptr().add(start);
            std::slice::from_raw_parts_mut(first, lent.bytes as usize)
        }
    }

    /// Gives a buffer back to the kernel.
    pub fn give_back(&mut self, lent: Lent) {
        self.buffers.provide(lent.id);
    }
}

impl Drop for Ring {
    fn drop(&mut self) {
        // From here on no receive can choose a buffer. Requests run only when this thread enters
        // the kernel, so none is in the middle of writing to one.
        let _gone_with_the_ring = self.ring.submitter().unregister_buf_ring(BUFFER_GROUP);
        // Accepted connections that nobody took are closed.
        while self.next_event().is_some() {}
    }
}

/// Errors of `io_uring_enter` that pass by themselves: a signal, the timeout, and completions
/// that must be taken first.
fn passing(result: io::Result<usize>) -> io::Result<()> {
    match result {
        Ok(_) => Ok(()),
        Err(error) => match error.raw_os_error() {
            Some(libc::EINTR | libc::ETIME | libc::EBUSY | libc::EAGAIN) => Ok(()),
            _ => Err(error),
        },
    }
}

/// The buffers that the kernel chooses from when bytes arrive.
struct Buffers {
    entries: NonNull<BufRingEntry>,
    memory: NonNull<u8>,
    count: u16,
    bytes: u32,
    tail: u16,
}

impl Buffers {
    fn new(count: u16, bytes: u32) -> Buffers {
        let (entries, memory) = Buffers::layouts(count, bytes);
        // SAFETY: both layouts have a size above zero.
        let (entries_at, memory_at) = unsafe { (alloc_zeroed(entries), alloc_zeroed(memory)) };
        let Some(entries_at) = NonNull::new(entries_at) else {
            handle_alloc_error(entries)
        };
        let Some(memory_at) = NonNull::new(memory_at) else {
            handle_alloc_error(memory)
        };
        Buffers {
            entries: entries_at.cast(),
            memory: memory_at,
            count,
            bytes,
            tail: 0,
        }
    }

    fn layouts(count: u16, bytes: u32) -> (Layout, Layout) {
        let entries = usize::from(count) * size_of::<BufRingEntry>();
        let memory = usize::from(count) * bytes as usize;
        assert!(entries > 0 && memory > 0, "sizes above zero");
        match (
            Layout::from_size_align(entries, PAGE),
            Layout::from_size_align(memory, PAGE),
        ) {
            (Ok(entries), Ok(memory)) => (entries, memory),
            _ => unreachable!("at most 65,535 × 4 GiB"),
        }
    }

    fn provide(&mut self, id: u16) {
        assert!(
            id < self.count,
            "the kernel names buffers that it was given"
        );
        let place = usize::from(self.tail & (self.count - 1));
        // SAFETY: `place` and `id` are below `count`, so both addresses lie within their
        // allocations. The kernel reads an entry only after the tail has passed it, and never
        // writes one. The tail lies in the first entry's reserved field, which the setters leave
        // alone; it is read by the kernel while we write it, hence the atomic.
        unsafe {
            let address = self
                .memory
                .as_ptr()
                .add(usize::from(id) * self.bytes as usize);
            let entry = &mut *self.entries.as_ptr().add(place);
            entry.set_addr(address as u64);
            entry.set_len(self.bytes);
            entry.set_bid(id);
            self.tail = self.tail.wrapping_add(1);
            let tail = BufRingEntry::tail(self.entries.as_ptr()).cast_mut();
            AtomicU16::from_ptr(tail).store(self.tail, Ordering::Release);
        }
    }
}

impl Drop for Buffers {
    fn drop(&mut self) {
        let (entries, memory) = Buffers::layouts(self.count, self.bytes);
        // SAFETY: allocated in `new` with these layouts; the ring that pointed here is gone.
        unsafe {
            dealloc(self.entries.as_ptr().cast(), entries);
            dealloc(self.memory.as_ptr(), memory);
        }
    }
}

/// An event descriptor: what wakes a shard from another thread.
#[derive(Debug)]
pub struct EventFd(File);

impl EventFd {
    /// A new one.
    ///
    /// # Errors
    /// EMFILE, ENFILE, ENOMEM.
    pub fn new() -> io::Result<EventFd> {
        // SAFETY: a plain system call; its result is checked and owned once.
        let descriptor = unsafe { libc::eventfd(0, libc::EFD_CLOEXEC | libc::EFD_NONBLOCK) };
        Ok(EventFd(File::from(owned(descriptor)?)))
    }

    /// Wakes whoever watches.
    pub fn ring(&self) {
        // It fails only when the counter is full, and then it is readable anyway.
        let _full = (&self.0).write(&1_u64.to_ne_bytes());
    }
}

fn owned(descriptor: RawFd) -> io::Result<OwnedFd> {
    checked(descriptor)?;
    // SAFETY: a system call just made this descriptor, and this is its only owner.
    Ok(unsafe { OwnedFd::from_raw_fd(descriptor) })
}

fn checked(result: i32) -> io::Result<i32> {
    if result < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(result)
}

/// How a listener is made.
#[derive(Clone, Copy, Debug)]
pub struct ListenOptions {
    /// Connections that may wait to be accepted; the system has a cap of its own.
    pub backlog: i32,
    /// Send buffer of each accepted socket, bytes; the kernel takes twice as much.
    pub send_buffer_bytes: i32,
    /// Whether several sockets share the address, each with its own queue.
    pub shared: bool,
}

/// A listening socket. What is set here (no delay, send buffer) the accepted ones inherit.
///
/// # Errors
/// EADDRINUSE, EACCES, EADDRNOTAVAIL and the like.
pub fn listen(address: SocketAddr, options: ListenOptions) -> io::Result<TcpListener> {
    let family = if address.is_ipv4() {
        libc::AF_INET
    } else {
        libc::AF_INET6
    };
    // SAFETY: a plain system call; its result is checked and owned once.
    let socket = owned(unsafe { libc::socket(family, libc::SOCK_STREAM | libc::SOCK_CLOEXEC, 0) })?;
    set(&socket, libc::SOL_SOCKET, libc::SO_REUSEADDR, 1)?;
    if options.shared {
        set(&socket, libc::SOL_SOCKET, libc::SO_REUSEPORT, 1)?;
    }
    set(
        &socket,
        libc::SOL_SOCKET,
        libc::SO_SNDBUF,
        options.send_buffer_bytes,
    )?;
    set(&socket, libc::IPPROTO_TCP, libc::TCP_NODELAY, 1)?;
    bind(&socket, address)?;
    // SAFETY: a plain system call on an open descriptor.
    checked(unsafe { libc::listen(socket.as_raw_fd(), options.backlog) })?;
    Ok(TcpListener::from(socket))
}

fn set(socket: &OwnedFd, level: i32, name: i32, value: i32) -> io::Result<()> {
    // SAFETY: the value is read during the call only, and its size is the one given.
    checked(unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            level,
            name,
            (&raw const value).cast(),
            size_of::<i32>() as libc::socklen_t,
        )
    })
    .map(drop)
}

fn bind(socket: &OwnedFd, address: SocketAddr) -> io::Result<()> {
    let descriptor = socket.as_raw_fd();
    let result = match address {
        SocketAddr::V4(address) => {
            let name = libc::sockaddr_in {
                sin_family: libc::AF_INET as libc::sa_family_t,
                sin_port: address.port().to_be(),
                sin_addr: libc::in_addr {
                    s_addr: u32::from_ne_bytes(address.ip().octets()),
                },
                sin_zero: [0; 8],
            };
            // SAFETY: the name is read during the call only, and its size is the one given.
            unsafe {
                libc::bind(
                    descriptor,
                    (&raw const name).cast(),
                    size_of_val(&name) as libc::socklen_t,
                )
            }
        }
        SocketAddr::V6(address) => {
            let name = libc::sockaddr_in6 {
                sin6_family: libc::AF_INET6 as libc::sa_family_t,
                sin6_port: address.port().to_be(),
                sin6_flowinfo: address.flowinfo(),
                sin6_addr: libc::in6_addr {
                    s6_addr: address.ip().octets(),
                },
                sin6_scope_id: address.scope_id(),
            };
            // SAFETY: as above.
            unsafe {
                libc::bind(
                    descriptor,
                    (&raw const name).cast(),
                    size_of_val(&name) as libc::socklen_t,
                )
            }
        }
    };
    checked(result).map(drop)
}

/// Sends what fits, without waiting; never raises SIGPIPE.
///
/// # Errors
/// `WouldBlock`: no room now. Others: the socket is broken.
pub fn send(socket: BorrowedFd<'_>, bytes: &[u8]) -> io::Result<usize> {
    let flags = libc::MSG_DONTWAIT | libc::MSG_NOSIGNAL;
    // SAFETY: the bytes are read during the call only, and there are as many as given.
    let sent = unsafe {
        libc::send(
            socket.as_raw_fd(),
            bytes.as_ptr().cast(),
            bytes.len(),
            flags,
        )
    };
    usize::try_from(sent).map_err(|_| io::Error::last_os_error())
}

/// Asks the kernel for no huge pages in this process, from here on.
///
/// The allocator advises them for its whole arena. Ten thousand connections are many small things that
/// come and go, so half-empty pages of 2 MiB held 5.6 KiB a connection where small ones hold 3.5.
///
/// # Errors
/// EINVAL: a kernel built without huge pages, which is as good.
pub fn small_pages() -> io::Result<()> {
    let (yes, unused): (libc::c_ulong, libc::c_ulong) = (1, 0);
    // SAFETY: sets a flag of the process, and is given no pointer.
    checked(unsafe { libc::prctl(libc::PR_SET_THP_DISABLE, yes, unused, unused, unused) }).map(drop)
}

/// Which direction of a socket ends.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Shutdown {
    /// Nothing is sent any more; what was sent still arrives.
    Write,
    /// Both: requests under way end, a listener accepts no more.
    Both,
}

/// Ends a direction of a socket. That it is broken already is no error.
pub fn shutdown(socket: impl AsFd, which: Shutdown) {
    let how = match which {
        Shutdown::Write => libc::SHUT_WR,
        Shutdown::Both => libc::SHUT_RDWR,
    };
    // SAFETY: a plain system call on an open descriptor.
    let _broken = unsafe { libc::shutdown(socket.as_fd().as_raw_fd(), how) };
}

/// A limit of the process.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Limit {
    /// Open descriptors.
    Descriptors,
    /// Locked memory, bytes.
    LockedBytes,
}

/// The limit in force and the highest it may be raised to; `u64::MAX` is no limit.
///
/// # Errors
/// Those of `getrlimit`: none is known to happen.
pub fn limit(of: Limit) -> io::Result<(u64, u64)> {
    let resource = match of {
        Limit::Descriptors => libc::RLIMIT_NOFILE,
        Limit::LockedBytes => libc::RLIMIT_MEMLOCK,
    };
    let mut limit = libc::rlimit {
        rlim_cur: 0,
        rlim_max: 0,
    };
    // SAFETY: written during the call only, to a value of the right type.
    checked(unsafe { libc::getrlimit(resource, &raw mut limit) })?;
    Ok((limit.rlim_cur, limit.rlim_max))
}

/// Raises the limit of open descriptors as far as it may be raised; returns it.
///
/// # Errors
/// Those of `getrlimit` and `setrlimit`.
pub fn raise_descriptors() -> io::Result<u64> {
    let (_, hard) = limit(Limit::Descriptors)?;
    let limit = libc::rlimit {
        rlim_cur: hard,
        rlim_max: hard,
    };
    // SAFETY: read during the call only.
    checked(unsafe { libc::setrlimit(libc::RLIMIT_NOFILE, &raw const limit) })?;
    Ok(hard)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Read;
    use std::net::TcpStream;

    const SIZES: RingSizes = RingSizes {
        submissions: 8,
        completions: 16,
        buffers: 4,
        buffer_bytes: 16,
    };
    const OPTIONS: ListenOptions = ListenOptions {
        backlog: 16,
        send_buffer_bytes: 16 << 10,
        shared: true,
    };
    const TOKEN: Token = Token {
        index: 7,
        generation: 3,
    };

    fn next(ring: &mut Ring) -> Event {
        for _ in 0..100 {
            if let Some(event) = ring.next_event() {
                return event;
            }
            ring.wait(1, Duration::from_millis(100)).expect("a wait");
        }
        panic!("nothing happened for 10 s");
    }

    fn pair(ring: &mut Ring) -> (TcpListener, TcpStream, OwnedFd) {
        let listener = listen("127.0.0.1:0".parse().expect("an address"), OPTIONS).expect("listen");
        ring.accept(&listener);
        ring.submit().expect("a submit");
        let client = TcpStream::connect(listener.local_addr().expect("bound")).expect("connect");
        match next(ring) {
            Event::Accepted {
                result: Ok(socket),
                more: true,
            } => (listener, client, socket),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn more_bytes_than_buffers_arrive_in_order() {
        let mut ring = Ring::new(SIZES).expect("a ring");
        let (_listener, mut client, socket) = pair(&mut ring);
        ring.receive(socket.as_fd(), TOKEN);
        ring.submit().expect("a submit");
        let sent: Vec<u8> = (0..1_000).map(|n| (n % 251) as u8).collect();
        client.write_all(&sent).expect("a write");
        let (mut received, mut starved) = (Vec::new(), 0);
        while received.len() < sent.len() {
            match next(&mut ring) {
                Event::Received {
                    token,
                    result,
                    more,
                } => {
                    assert_eq!(token, TOKEN);
                    match result {
                        Ok(Some(lent)) => {
                            received.extend_from_slice(ring.bytes(&lent));
                            ring.give_back(lent);
                        }
                        Ok(None) => panic!("an end"),
                        Err(error) => {
                            assert_eq!(error.raw_os_error(), Some(libc::ENOBUFS));
                            starved += 1;
                        }
                    }
                    if !more {
                        ring.receive(socket.as_fd(), TOKEN);
                    }
                }
                other => panic!("{other:?}"),
            }
        }
        assert_eq!(received, sent);
        assert!(starved > 0, "four buffers of 16 bytes cannot hold them");
    }

    #[test]
    fn a_shutdown_ends_what_is_under_way() {
        let mut ring = Ring::new(SIZES).expect("a ring");
        let (listener, mut client, socket) = pair(&mut ring);
        while send(socket.as_fd(), &[0; 4096]).is_ok() {}
        ring.receive(socket.as_fd(), TOKEN);
        ring.poll_writable(socket.as_fd(), TOKEN);
        ring.submit().expect("a submit");
        shutdown(&socket, Shutdown::Both);
        let (mut ended, mut writable) = (false, false);
        while !(ended && writable) {
            match next(&mut ring) {
                Event::Received {
                    result: Ok(None),
                    more: false,
                    ..
                } => ended = true,
                Event::Writable { token: TOKEN } => writable = true,
                other => panic!("{other:?}"),
            }
        }
        drop(socket);
        client.read_to_end(&mut Vec::new()).expect("an end");
        shutdown(&listener, Shutdown::Both);
        match next(&mut ring) {
            Event::Accepted {
                result: Err(_),
                more: false,
            } => (),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn a_bell_and_a_timer_wake() {
        let mut ring = Ring::new(SIZES).expect("a ring");
        let event = std::sync::Arc::new(EventFd::new().expect("an event descriptor"));
        ring.watch(&event);
        ring.submit().expect("a submit");
        for _ in 0..3 {
            let ringer = event.clone();
            let thread = std::thread::spawn(move || ringer.ring());
            assert!(matches!(next(&mut ring), Event::Rung { more: true }));
            thread.join().expect("the ringer");
        }
        for _ in 0..2 {
            ring.timer(Duration::from_millis(1));
            assert!(matches!(next(&mut ring), Event::Timer));
        }
    }

    #[test]
    fn requests_beyond_the_queue_are_not_lost() {
        let mut ring = Ring::new(SIZES).expect("a ring");
        let (_listener, mut client, socket) = pair(&mut ring);
        for _ in 0..100 {
            ring.poll_writable(socket.as_fd(), TOKEN);
        }
        for _ in 0..100 {
            assert!(matches!(next(&mut ring), Event::Writable { token: TOKEN }));
        }
        ring.receive_once(socket.as_fd(), TOKEN);
        client.write_all(b"once").expect("a write");
        match next(&mut ring) {
            Event::Received {
                result: Ok(Some(lent)),
                more: false,
                ..
            } => {
                assert_eq!(ring.bytes(&lent), b"once");
                ring.give_back(lent);
            }
            other => panic!("{other:?}"),
        }
    }
}
