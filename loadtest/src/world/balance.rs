//! Which node a connection goes to: what a balancer with least connections and a passive health
//! check decides.
//!
//! Invariants: a node that refused or dropped a connection gets no new one for a while, unless all
//! are in that state; then the least loaded one is tried, as a balancer does that has nobody left.

use super::{DropBy, Phase, State, World};
use crate::clock::us;
use crate::engine::Closed;
use crate::ids::{ClientIndex, NodeIndex};
use crate::limits::NODE_SUSPECT_FOR;
use crate::stats::NodeStats;

/// What the balancer knows of a node.
#[derive(Clone, Debug, Default)]
pub struct Node {
    /// Connections made or being made.
    pub connections: usize,
    suspect_until_us: u64,
}

/// The node with the fewest connections among those that are not suspect; of equals the one after
/// `turn`, so that members of one room, who connect one after the other, are spread.
fn choose(nodes: &[Node], turn: usize, now_us: u64) -> NodeIndex {
    let order = || (0..nodes.len()).map(|step| (turn + step) % nodes.len());
    let healthy = order().filter(|node| nodes[*node].suspect_until_us <= now_us);
    let node = healthy
        .min_by_key(|node| nodes[*node].connections)
        .or_else(|| order().min_by_key(|node| nodes[*node].connections))
        .unwrap_or(0);
    NodeIndex(node as u32)
}

impl World {
    /// Drops connections of nodes that have more than their share, by FIN and without a word, so
    /// that they come back on the others. All nodes must be up: what was suspect is no more.
    /// Returns how many.
    pub fn rebalance(&mut self) -> usize {
        for node in &mut self.state.nodes {
            node.suspect_until_us = 0;
        }
        let state = &self.state;
        let share = state.wanted().div_ceil(state.nodes.len());
        let mut surplus: Vec<usize> = state
            .nodes
            .iter()
            .map(|node| node.connections.saturating_sub(share))
            .collect();
        let mut moved = Vec::new();
        for (index, client) in state.clients.iter().enumerate() {
            let left = &mut surplus[client.node.index()];
            if client.phase == Phase::Ready && *left > 0 {
                *left -= 1;
                moved.push(ClientIndex(index as u32));
            }
        }
        self.drop_clients(moved.iter().copied(), DropBy::Fin);
        self.want(moved.iter().copied());
        moved.len()
    }
}

impl State {
    /// Chooses a node for a new connection, and counts it there.
    pub(super) fn take_node(&mut self) -> NodeIndex {
        let node = choose(&self.nodes, self.node_turn, self.clock.now_us());
        self.node_turn = (node.index() + 1) % self.nodes.len();
        self.nodes[node.index()].connections += 1;
        node
    }

    /// A connection that was counted there is over.
    pub(super) fn give_back(&mut self, node: NodeIndex) {
        let node = &mut self.nodes[node.index()];
        node.connections = node.connections.saturating_sub(1);
    }

    /// What an ending says of the node: a stream that broke, a refusal, a drain.
    pub(super) fn suspect(&mut self, node: NodeIndex, closed: &Closed) {
        let is_node_gone = match closed {
            Closed::Lost(_) | Closed::Http(_) | Closed::Code(4100 | 4102) => true,
            Closed::Code(_) | Closed::NoCode | Closed::Violation(_) | Closed::BadHandshake(_) => {
                false
            }
        };
        if is_node_gone && self.nodes.len() > 1 {
            self.nodes[node.index()].suspect_until_us = self.clock.now_us() + us(NODE_SUSPECT_FOR);
        }
    }

    /// Clients of each node that are ready.
    pub fn ready_by_node(&self) -> Vec<usize> {
        let mut ready = vec![0; self.nodes.len()];
        for client in &self.clients {
            if client.phase == Phase::Ready {
                ready[client.node.index()] += 1;
            }
        }
        ready
    }

    /// First acks by node so far.
    pub fn acks_by_node(&self) -> Vec<u64> {
        let acks = |node: &NodeStats| node.acks;
        self.stats.nodes.iter().map(acks).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn nodes(connections: &[usize]) -> Vec<Node> {
        let node = |connections: &usize| Node {
            connections: *connections,
            suspect_until_us: 0,
        };
        connections.iter().map(node).collect()
    }

    #[test]
    fn equals_take_turns() {
        let mut nodes = nodes(&[0, 0, 0]);
        let mut turn = 0;
        let mut taken = Vec::new();
        for _ in 0..6 {
            let node = choose(&nodes, turn, 1).index();
            nodes[node].connections += 1;
            turn = node + 1;
            taken.push(node);
        }
        assert_eq!(taken, [0, 1, 2, 0, 1, 2]);
    }

    #[test]
    fn a_suspect_node_is_left_out_until_its_time_is_over() {
        let mut nodes = nodes(&[5, 0, 7]);
        nodes[1].suspect_until_us = 10;
        assert_eq!(choose(&nodes, 0, 9), NodeIndex(0));
        assert_eq!(choose(&nodes, 0, 10), NodeIndex(1));
    }

    #[test]
    fn when_all_are_suspect_one_is_tried_all_the_same() {
        let mut nodes = nodes(&[3, 2]);
        nodes.iter_mut().for_each(|node| node.suspect_until_us = 10);
        assert_eq!(choose(&nodes, 0, 1), NodeIndex(1));
    }
}
