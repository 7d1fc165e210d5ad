//! A WebSocket frame, encoded once and shared by reference by every outbox of a shard.
//!
//! Nothing is shared between shards: a frame that crosses the mesh is copied once per shard.

use crate::protocol::event::{EncodedEvent, Membership};
use crate::protocol::websocket;
use std::rc::Rc;

/// What may happen to a frame that does not fit.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Class {
    /// Never dropped: replies and durable events. Too many of them close the connection.
    Durable,
    /// Only the newest of one key matters: receipts, presence.
    Coalescible(u64),
    /// Worth nothing later: pings, typing.
    Ephemeral,
}

/// When a durable event passed the stages before the outbox, µs of the shard's clock; 0 where
/// there is nothing to measure.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Stamps {
    /// When its command was received, by the shard that received it.
    pub received_us: u64,
    /// When the gate released it.
    pub published_us: u64,
}

#[derive(Debug)]
struct Body {
    class: Class,
    stamps: Stamps,
    membership: Option<Membership>,
    bytes: Box<[u8]>,
}

/// An encoded frame.
#[derive(Clone, Debug)]
pub struct Frame(Rc<Body>);

impl Frame {
    /// A text frame of this JSON.
    pub fn text(json: &str, class: Class) -> Frame {
        Frame::encoded(websocket::encode_text(json), class, Stamps::default())
    }

    /// A frame that is encoded already.
    pub fn encoded(bytes: Box<[u8]>, class: Class, stamps: Stamps) -> Frame {
        Frame(Rc::new(Body {
            class,
            stamps,
            membership: None,
            bytes,
        }))
    }

    /// A durable event.
    pub fn of(event: EncodedEvent, stamps: Stamps) -> Frame {
        Frame::event(event.frame, stamps, event.membership)
    }

    /// A durable event that may change who listens.
    pub fn event(bytes: Box<[u8]>, stamps: Stamps, membership: Option<Membership>) -> Frame {
        Frame(Rc::new(Body {
            class: Class::Durable,
            stamps,
            membership,
            bytes,
        }))
    }

    /// How this event changes who listens.
    pub fn membership(&self) -> Option<Membership> {
        self.0.membership
    }

    /// Header and payload.
    pub fn bytes(&self) -> &[u8] {
        &self.0.bytes
    }

    /// Its length, bytes.
    pub fn len(&self) -> usize {
        self.0.bytes.len()
    }

    /// Never: a frame has a header.
    pub fn is_empty(&self) -> bool {
        false
    }

    /// What may happen to it when it does not fit.
    pub fn class(&self) -> Class {
        self.0.class
    }

    /// When it passed the stages before.
    pub fn stamps(&self) -> Stamps {
        self.0.stamps
    }
}
