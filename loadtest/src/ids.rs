//! Small numbers for what the wire names by UUID. A UUID is looked up once per frame, at the edge.

/// A client of the load test: one user, at most one live connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ClientIndex(pub u32);

/// A room of the load test.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RoomIndex(pub u32);

/// The place of a client among the members of one room.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Slot(pub u32);

/// A message that this run wrote, numbered in the order of due times.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct MessageNumber(pub u32);

/// A change of a message that this run asked for, numbered in the order of due times.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ChangeNumber(pub u32);

/// A node of the cluster, by its place in the list of addresses.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct NodeIndex(pub u32);

impl ClientIndex {
    pub fn index(self) -> usize {
        self.0 as usize
    }
}

impl RoomIndex {
    pub fn index(self) -> usize {
        self.0 as usize
    }
}

impl Slot {
    pub fn index(self) -> usize {
        self.0 as usize
    }
}

impl MessageNumber {
    pub fn index(self) -> usize {
        self.0 as usize
    }
}

impl ChangeNumber {
    pub fn index(self) -> usize {
        self.0 as usize
    }
}

impl NodeIndex {
    pub fn index(self) -> usize {
        self.0 as usize
    }
}
