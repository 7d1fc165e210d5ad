//! Who is in which room. Pure and repeatable: the same arguments make the same layout.

use crate::ids::{ClientIndex, RoomIndex, Slot};
use crate::random::Random;

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Room {
    pub members: Vec<ClientIndex>,
    /// The first so many members write.
    pub senders: u32,
}

#[derive(Clone, Debug)]
pub struct Layout {
    /// Part of the rooms' ids: another shape makes other rooms.
    pub name: String,
    pub clients: usize,
    pub rooms: Vec<Room>,
}

impl Layout {
    /// Every client in `rooms_per_user` rooms of `room_size`: once beside its neighbours, then
    /// beside others, shuffled.
    pub fn grid(clients: usize, room_size: usize, rooms_per_user: usize) -> Self {
        Self {
            name: format!("grid {clients} {room_size} {rooms_per_user}"),
            ..Self::mixed(clients, &vec![room_size; rooms_per_user])
        }
    }

    /// Every client in one room of each size, beside other clients in each.
    pub fn mixed(clients: usize, room_sizes: &[usize]) -> Self {
        let mut rooms = Vec::new();
        let mut order: Vec<ClientIndex> = (0..clients as u32).map(ClientIndex).collect();
        for (layer, room_size) in room_sizes.iter().enumerate() {
            let room_size = (*room_size).clamp(1, clients.max(1));
            if layer > 0 {
                Random::new(layer as u64).shuffle(&mut order);
            }
            let first_of_layer = rooms.len();
            for members in order.chunks(room_size) {
                // A rest of one would be a room without anybody to talk to.
                if members.len() == 1 && rooms.len() > first_of_layer {
                    if let Some(room) = rooms.last_mut() {
                        let room: &mut Room = room;
                        room.members.extend_from_slice(members);
                        room.senders += 1;
                    }
                    continue;
                }
                rooms.push(Room {
                    members: members.to_vec(),
                    senders: members.len() as u32,
                });
            }
        }
        Self {
            name: format!("mixed {clients} {room_sizes:?}"),
            clients,
            rooms,
        }
    }

    /// Rooms of `room_size` of which only the first `senders` members write.
    pub fn audience(clients: usize, room_size: usize, senders: usize) -> Self {
        let mut layout = Self::grid(clients, room_size, 1);
        layout.name = format!("audience {clients} {room_size} {senders}");
        for room in &mut layout.rooms {
            room.senders = (senders as u32).clamp(1, room.members.len() as u32);
        }
        layout
    }

    /// Client 0 in all rooms, each with one writer of its own.
    pub fn star(rooms: usize) -> Self {
        let rooms: Vec<Room> = (0..rooms as u32)
            .map(|room| Room {
                members: vec![ClientIndex(room + 1), ClientIndex(0)],
                senders: 1,
            })
            .collect();
        Self {
            name: format!("star {}", rooms.len()),
            clients: rooms.len() + 1,
            rooms,
        }
    }

    /// Each client's rooms, in order, with its place in them.
    pub fn memberships(&self) -> Vec<Vec<(RoomIndex, Slot)>> {
        let mut memberships = vec![Vec::new(); self.clients];
        for (room, plan) in self.rooms.iter().enumerate() {
            for (slot, client) in plan.members.iter().enumerate() {
                memberships[client.index()].push((RoomIndex(room as u32), Slot(slot as u32)));
            }
        }
        memberships
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn everybody_is_in_the_asked_number_of_rooms() {
        for (clients, size, layers) in
            [(10, 4, 1), (9, 4, 3), (1000, 1000, 1), (7, 3, 4), (1, 1, 1)]
        {
            let layout = Layout::grid(clients, size, layers);
            for rooms in layout.memberships() {
                assert_eq!(rooms.len(), layers);
                assert!(rooms.windows(2).all(|pair| pair[0].0 < pair[1].0));
            }
            for room in &layout.rooms {
                assert!(room.members.len() > 1 || clients == 1);
                assert!(room.members.len() <= size + 1);
                let mut unique = room.members.clone();
                unique.sort_unstable();
                unique.dedup();
                assert_eq!(unique.len(), room.members.len());
            }
        }
    }

    #[test]
    fn mixed_rooms_hold_everybody_once_per_size() {
        let layout = Layout::mixed(100, &[2, 4, 50]);
        let sizes: Vec<usize> = layout.rooms.iter().map(|room| room.members.len()).collect();
        assert_eq!(sizes[..50], [2; 50]);
        assert_eq!(sizes[50..75], [4; 25]);
        assert_eq!(sizes[75..], [50; 2]);
        assert!(layout.memberships().iter().all(|rooms| rooms.len() == 3));
    }

    #[test]
    fn the_centre_of_a_star_is_in_all_rooms_and_writes_in_none() {
        let layout = Layout::star(5);
        assert_eq!(layout.memberships()[0].len(), 5);
        assert!(layout.rooms.iter().all(|room| room.senders == 1));
        assert!(
            layout
                .rooms
                .iter()
                .all(|room| room.members[0] != ClientIndex(0))
        );
    }
}
