//! The relay between nodes, as the shards see it.

/// What a shard asks of the relay. Buckets are those of rooms, [`crate::limits::USERS_BUCKET`], and
/// [`crate::limits::PRESENCE_BUCKETS`] from [`crate::limits::PRESENCE_BUCKET`] on.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum RelayCall {
    /// Tells all nodes that follow this bucket. May be lost.
    Publish(u16, Box<[u8]>),
    /// Wants what is published to this bucket, until [`RelayCall::Unfollow`]; also again after
    /// every loss of the connection.
    Follow(u16),
    /// Does not want it any more.
    Unfollow(u16),
}

/// What the relay tells a shard.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum RelayNews {
    /// It works. Said before anything else, and after every [`RelayNews::Down`].
    Up,
    /// It does not work, or not for every bucket: nothing that is followed may be relied upon. Messages
    /// may still come.
    Down,
    /// Whatever is published to this bucket from now on comes, as long as the relay is up.
    Following(u16),
    /// Messages were lost on the way to this shard.
    Lost,
    /// A message that was published to a bucket of this shard; possibly by this node.
    Message(Box<[u8]>),
}

/// The relay between nodes as the shards see it: a hint, never the truth. What it loses is found
/// in the store.
pub trait Relay: Send + Sync {
    /// Where each shard's news go; a bucket's go to shard `bucket % shards`. Called once, before
    /// anything else.
    fn attach(&self, shards: Vec<std::sync::Arc<dyn RelaySink>>);

    /// Takes a call. Never blocks; a message that does not fit into the queue is dropped.
    fn submit(&self, call: RelayCall);
}

/// Where news of the relay go: into a shard's queue, or into a test. Never blocks.
pub trait RelaySink: Send + Sync {
    /// Takes one.
    fn news(&self, news: RelayNews);
}
