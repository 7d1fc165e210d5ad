//! Profiles that the Main App told: who sees the user is told how they are called now.
//!
//! Invariant: a connection is told of a profile once, however many rooms it shares with the user, and only while it
//! shares one, or is the user's own. Of one user only the newest waits in an outbox, and nobody is closed for it.

use super::ConnId;
use super::bus::Context;
use super::frame::{Class, Frame};
use super::port::intake::ProfileTold;
use super::sessions::{Sessions, append};
use crate::protocol::event::{Notice, UserUpdated};

impl Sessions {
    /// These profiles were told, each newer than what was told of the user before.
    pub(super) fn profiles_told(&mut self, profiles: &[ProfileTold], ctx: &mut Context<'_>) {
        for profile in profiles {
            let own = self.users.get(&profile.user).map_or(&[][..], Vec::as_slice);
            let mut places: Vec<u32> = own.iter().map(|conn| conn.index).collect();
            for room in &profile.rooms {
                let place = self.index.get(room).copied();
                let Some(local) = place.and_then(|place| self.rooms.get(place as usize)) else {
                    continue;
                };
                let live = local.subscribers.iter().filter(|one| one.is_live());
                places.extend(live.map(|one| one.index()));
            }
            if places.is_empty() {
                continue;
            }
            places.sort_unstable();
            places.dedup();
            let updated = Notice::UserUpdated(UserUpdated {
                user_id: profile.user,
                name: profile.name.clone(),
                picture: profile.picture.clone(),
                version: profile.version,
            });
            let (high, low) = profile.user.0.as_u64_pair();
            let class = Class::Coalescible(high ^ low.rotate_left(1));
            let frame = Frame::text(&updated.to_json(), class);
            let bytes_max = self.outbox_bytes_max(ctx);
            for index in places {
                let Some(Some(session)) = self.table.get_mut(index as usize) else {
                    continue;
                };
                // Who is signing in reads the profile with the room.
                if !session.is_ready() {
                    continue;
                }
                let conn = ConnId {
                    index,
                    generation: session.generation,
                };
                let _dropped = append(
                    session,
                    conn,
                    &frame,
                    bytes_max,
                    &mut self.outbox_bytes,
                    ctx,
                );
            }
        }
    }
}
