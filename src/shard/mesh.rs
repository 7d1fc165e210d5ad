//! The channels between the shards of a node: one single-producer single-consumer ring for each
//! ordered pair.
//!
//! Invariants: messages of one shard to another arrive in the order sent, and none is dropped;
//! nothing waits: what does not fit stays in front of the ring, where the core sees it.

use super::bell::Bell;
use crate::chat::{MeshMessage, ShardCore, ShardIx};
use crate::limits;
use rtrb::{Consumer, Producer, RingBuffer};
use std::sync::Arc;

/// One shard's ends of the channels. The place of the shard itself is empty.
pub struct Mesh {
    from: Vec<Option<Consumer<MeshMessage>>>,
    to: Vec<Option<(Producer<MeshMessage>, Arc<Bell>)>>,
}

impl std::fmt::Debug for Mesh {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("Mesh").finish_non_exhaustive()
    }
}

/// Makes the channels between shards with these bells; one element for each shard.
pub fn wire(bells: &[Arc<Bell>]) -> Vec<Mesh> {
    let shards = bells.len();
    let mut meshes: Vec<Mesh> = (0..shards)
        .map(|_| Mesh {
            from: (0..shards).map(|_| None).collect(),
            to: (0..shards).map(|_| None).collect(),
        })
        .collect();
    for from in 0..shards {
        for to in 0..shards {
            if from != to {
                let (producer, consumer) = RingBuffer::new(limits::MESH_RING_MESSAGES);
                meshes[from].to[to] = Some((producer, bells[to].clone()));
                meshes[to].from[from] = Some(consumer);
            }
        }
    }
    meshes
}

impl Mesh {
    /// How many shards there are.
    pub fn shards(&self) -> usize {
        self.from.len()
    }

    /// Whether a message waits to be taken.
    pub fn has_messages(&self) -> bool {
        self.from.iter().flatten().any(|ring| !ring.is_empty())
    }

    /// The next message of a shard.
    pub fn take(&mut self, from: usize) -> Option<MeshMessage> {
        self.from[from].as_mut()?.pop().ok()
    }

    /// Moves what the core has for other shards into the rings as far as there is room, and wakes
    /// them. Returns whether something is left.
    pub fn send(&mut self, core: &mut ShardCore) -> bool {
        let mut left = false;
        for (to, ring) in self.to.iter_mut().enumerate() {
            let Some((ring, bell)) = ring else { continue };
            let messages = core.mesh_out(to as ShardIx);
            if messages.is_empty() {
                continue;
            }
            let count = messages.len().min(ring.slots());
            for message in messages.drain(..count) {
                let pushed = ring.push(message);
                assert!(pushed.is_ok(), "a ring lost its room");
            }
            if count > 0 {
                bell.ring();
            }
            left |= !messages.is_empty();
        }
        left
    }
}
