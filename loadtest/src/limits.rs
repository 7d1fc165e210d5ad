//! Every bound and pause of the load test, with the reason for its size.

use std::time::Duration;

/// Largest frame accepted from the server: a history page of 100 messages of 4,000 four-byte
/// characters, each escaped, stays well below it.
pub const FRAME_BYTES_MAX: usize = 16 << 20;
/// Bytes read from one socket by one system call, shared by all connections.
pub const READ_BUFFER_BYTES: usize = 256 << 10;
/// System calls spent on one connection before the others get their turn.
pub const READS_PER_TURN_MAX: usize = 8;
/// Unsent bytes of one connection; a server that takes nothing more for this long is stuck.
pub const UNSENT_BYTES_MAX: usize = 1 << 20;
/// Largest answer to the upgrade request.
pub const HANDSHAKE_BYTES_MAX: usize = 8 << 10;

/// Connections between `connect` and `ready` at one time, outside of storms. The system caps the
/// listen backlog at 4,096; a window well below it never overflows it.
pub const CONNECTS_IN_FLIGHT_MAX: usize = 512;
const _: () = assert!(CONNECTS_IN_FLIGHT_MAX < 4096);
/// Rooms named in `auth`'s `resume`, by the wire protocol.
pub const RESUME_ROOMS_MAX: usize = 500;
/// `room.create` requests in flight; each is a transaction on the server.
pub const ROOM_CREATES_IN_FLIGHT_MAX: usize = 128;
/// Members named in one `room.create` or `room.members.add`; the server takes no more.
pub const MEMBERS_PER_REQUEST_MAX: usize = 200;

/// Sends of one client without a final answer. An open-loop generator must not collect without end
/// what a dead server never answers; what is over the bound is counted as not sent.
pub const UNACKED_PER_CLIENT_MAX: usize = 64;
/// Temporary errors in a row after which a send is given up (and found by the checker).
/// A minute without a database, asked again every 100 ms, is 600.
pub const SEND_ATTEMPTS_MAX: u16 = 2_000;
/// The server counts unread messages up to this.
pub const UNREAD_MAX: u64 = 100;
/// Questions without an answer at the end, when everything is asked once more.
pub const INSPECTION_IN_FLIGHT_MAX: usize = 64;
/// All of them are answered within this, or that is a finding.
pub const INSPECTION_LIMIT: Duration = Duration::from_secs(60);
/// Rooms whose last message is searched for at the end.
pub const LAST_SEARCHES_MAX: usize = 50;
/// What was written is found within this when nothing else happens, also after a fault: the index is behind.
pub const INDEX_LIMIT: Duration = Duration::from_secs(20);
/// What was said of receipts is stored within this when nothing else happens: they are written every
/// second, and again if the store was away.
pub const RECEIPTS_LIMIT: Duration = Duration::from_secs(10);
/// Who does not say again that they are typing is forgotten after this.
pub const TYPING_ENDS_AFTER: Duration = Duration::from_secs(6);
/// Who is typing is told once a second, and this process may be late.
pub const TYPING_SLACK: Duration = Duration::from_secs(5);
/// Connections that read the history at the end, at one time.
pub const READERS_MAX: usize = 128;
/// Members of one room that share the reading of its history.
pub const READERS_PER_ROOM_MAX: usize = 16;
/// Events of one reading job; a room with more is read by several members at once.
pub const READ_JOB_EVENTS: u64 = 2_000;
/// Page size asked of `history.get`, the server's maximum.
pub const HISTORY_PAGE: u64 = 100;
/// A reader that waits longer for an answer connects anew.
pub const READER_SILENCE_MAX: Duration = Duration::from_secs(5);
/// Failed connections or refusals after which a reader gives up.
pub const READER_ATTEMPTS_MAX: u32 = 40;

/// The protocol's reconnect pause: 1-30 s with full jitter.
pub const BACKOFF_CAP: Duration = Duration::from_secs(30);
/// A connection that lived this long reconnects at once after a 42xx close.
pub const LIVED_LONG: Duration = Duration::from_secs(30);
/// A node that broke or refused a connection gets no new one for so long.
pub const NODE_SUSPECT_FOR: Duration = Duration::from_secs(1);
/// From `connect` to `ready`; longer counts as a failed connection.
pub const CONNECT_DEADLINE: Duration = Duration::from_secs(20);
/// Pings come every 25 s and are answered within 10 s: a client that heard nothing for the sum
/// reconnects.
pub const SILENCE_MAX: Duration = Duration::from_secs(35);

/// Holes remembered per connection and room, to tell a late event from a lost one.
pub const MISSING_PER_CURSOR_MAX: usize = 1024;
/// Findings described in words; all are counted.
pub const FINDING_EXAMPLES_MAX: usize = 40;

/// Read from one side of a proxied connection and not yet taken by the other.
pub const PROXY_BUFFER_BYTES: usize = 256 << 10;
/// Connections that wait at a black hole for the line to be whole again.
pub const PROXY_BACKLOG: i32 = 1024;
/// The proxy's thread answers within this, or is gone.
pub const PROXY_COMMAND_LIMIT: Duration = Duration::from_secs(10);
/// A backend starts, recovers or ends within this.
pub const BACKEND_START_LIMIT: Duration = Duration::from_secs(60);
/// A backend on loopback that lives answers within this.
pub const BACKEND_PROBE_LIMIT: Duration = Duration::from_millis(500);
/// Connections of the private PostgreSQL: three nodes and those who look.
pub const BACKEND_CONNECTIONS_MAX: u32 = 200;
