//! What other threads ask of a shard: the requests of clients without a socket, and what the service itself
//! wants of it.

use super::intake::ProfileTold;
use super::{Identity, Op};
use crate::chat::ConnId;
use crate::chat::rate::Left;
use crate::protocol::ending::SessionsEnd;
use crate::protocol::presence::UserPresence;
use crate::protocol::request::{Command, Refused};
use crate::protocol::{CloseCode, UnixMs, UserId};
use std::net::IpAddr;
use std::sync::Arc;

/// The driver's name for a request of a client without a socket.
pub type AskId = u64;

/// A request of a client without a socket: a guest, who asks one thing and is told one thing.
#[derive(Debug)]
pub struct Ask {
    /// Given back with the answer.
    pub id: AskId,
    /// Who asks.
    pub identity: Identity,
    /// What: the same command that a frame would be, or why it cannot be one.
    pub command: Result<Command, Refused>,
}

/// What a guest is told.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Answer {
    /// The reply that a connection would get, with id 0: `ack` or `error`.
    pub reply: String,
    /// What the user may still ask; `None` if the request was not counted.
    pub left: Option<Left>,
}

/// Where the answer to a guest goes. Called at most once, from a shard's thread, so it must not block; never
/// called if the shard ends before.
pub type Done = Box<dyn FnOnce(Answer) + Send>;

/// A guest on the way to its shard.
pub struct Asked {
    /// Who asks.
    pub identity: Identity,
    /// What.
    pub command: Result<Command, Refused>,
    /// Where the answer goes.
    pub done: Done,
}

/// What the service itself wants of a shard.
#[derive(Debug)]
pub enum ServiceAsk {
    /// Its connections that are signed in.
    Connections(ConnectionsRead),
    /// Ends the connection that `ready` told this name.
    Close {
        /// Its name.
        connection: String,
        /// How.
        code: CloseCode,
    },
    /// Tells all shards of this node, and all other nodes, that sessions end: the store has it already.
    End(SessionsEnd),
    /// Tells connections of profiles that the Main App told.
    Profiles(Arc<[ProfileTold]>),
    /// Asks all other nodes which of these users, at most [`crate::limits::CONNECTED_USERS_MAX`], have a connection.
    /// For the shard of [`crate::limits::USERS_BUCKET`]. What they say is in its answers to
    /// [`ServiceAsk::Connected`] for a while.
    AskElsewhere(Vec<UserId>),
    /// Which of these users have a connection to this shard, or to another node that said so.
    Connected(Vec<UserId>),
    /// How this user is seen, as far as this node knows. For the shard of their bucket of presence.
    Presence(UserId),
    /// A write in nobody's name, on the way of all writes: batch, commit, gate, fan-out.
    Write(Op),
}

/// What the service is told.
#[derive(Debug)]
pub enum ServiceAnswer {
    /// To [`ServiceAsk::Connections`].
    Connections(ConnectionsPage),
    /// To [`ServiceAsk::Close`]: whether there was one.
    Closed(bool),
    /// To [`ServiceAsk::End`] and [`ServiceAsk::Profiles`], and to [`ServiceAsk::AskElsewhere`] where nobody
    /// can be asked.
    Told,
    /// To [`ServiceAsk::AskElsewhere`]: it is asked.
    Asked,
    /// To [`ServiceAsk::Connected`].
    Connected(Vec<UserId>),
    /// To [`ServiceAsk::Presence`].
    Presence(UserPresence),
    /// To [`ServiceAsk::Write`]: the reply that a connection would get, with id 0.
    Reply(String),
}

/// A page of a shard's connections to read.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct ConnectionsRead {
    /// Only those of this user.
    pub user: Option<UserId>,
    /// From this place on.
    pub from: u32,
    /// At most so many.
    pub limit: usize,
}

/// A page of a shard's connections.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct ConnectionsPage {
    /// By place.
    pub connections: Vec<ConnectionSeen>,
    /// From where the next page goes on, if there may be more.
    pub next: Option<u32>,
}

/// A connection that is signed in.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ConnectionSeen {
    /// Its place.
    pub conn: ConnId,
    /// As `ready` told it.
    pub name: String,
    /// Whose.
    pub user: UserId,
    /// What the client calls itself.
    pub client: Option<String>,
    /// Since when.
    pub connected_at: UnixMs,
    /// When its token ends.
    pub token_expires_at: UnixMs,
    /// Bytes that wait for it.
    pub outbox_bytes: usize,
    /// Where from: known to the driver only.
    pub address: Option<IpAddr>,
}

/// Where the answer to the service goes; see [`Done`].
pub type ServiceDone = Box<dyn FnOnce(ServiceAnswer) + Send>;

/// A question of the service on the way to a shard.
pub struct ServiceAsked {
    /// What.
    pub ask: ServiceAsk,
    /// Where the answer goes.
    pub done: ServiceDone,
}
