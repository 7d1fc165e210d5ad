//! What the service itself does in a shard: looks at its connections, closes one, ends the sessions of a user on
//! all nodes, writes in nobody's name.
//!
//! Invariants: sessions end that began before the version which the end made, and no others, whatever comes
//! first: a session holds the version that its sign-in read, in the same snapshot as all else of it. What is
//! told of an end may be lost; then the user's version tells, which is compared with the store always.

use super::bus::{Context, MeshMessage};
use super::home_relay;
use super::port::{
    AskId, ConnectionSeen, ConnectionsPage, ConnectionsRead, Op, ServiceAnswer, ServiceAsk,
};
use super::session::{Ready, Session, State};
use super::sessions::Sessions;
use super::{ConnId, Effect, Peers};
use crate::limits;
use crate::protocol::ending::{Began, SessionsEnd};
use crate::protocol::relay::RelayMessage;
use crate::protocol::request::ClientInfo;
use crate::protocol::{CloseCode, ErrorCode, UnixMs, UserId};

/// What a client calls itself, in short.
pub(super) fn client_name(info: &ClientInfo) -> Box<str> {
    let version = info.version.as_deref().unwrap_or_default();
    let both = format!("{} {version}", &*info.name);
    let short: String = both.trim().chars().take(limits::CLIENT_CHARS_MAX).collect();
    short.trim_end().into()
}

/// The name of a connection, as `ready` tells it.
pub(super) fn connection_name(shard: u16, conn: ConnId, random: u32) -> String {
    let ConnId { index, generation } = conn;
    format!("{shard}-{index}-{generation}-{random:08x}")
}

/// The shard and the place in such a name.
pub fn place_in(name: &str) -> Option<(u16, u32)> {
    let mut parts = name.split('-');
    Some((parts.next()?.parse().ok()?, parts.next()?.parse().ok()?))
}

/// Tells all shards of this node that sessions end.
pub(super) fn tell_end(end: SessionsEnd, ctx: &mut Context<'_>) {
    for shard in 0..ctx.config.shards {
        if ctx.takes_events(shard) {
            ctx.tell(shard, MeshMessage::Ended(end));
        }
    }
}

impl Sessions {
    /// The service wants something.
    pub fn serve(&mut self, id: AskId, ask: ServiceAsk, ctx: &mut Context<'_>) {
        let answer = match ask {
            ServiceAsk::Connections(read) => {
                ServiceAnswer::Connections(self.connections(read, ctx))
            }
            ServiceAsk::Close { connection, code } => {
                ServiceAnswer::Closed(self.close_named(&connection, code, ctx))
            }
            ServiceAsk::End(end) => {
                tell_end(end, ctx);
                if ctx.config.peers == Peers::Relay {
                    home_relay::tell(limits::USERS_BUCKET, &RelayMessage::Ended(end), ctx);
                }
                ServiceAnswer::Told
            }
            ServiceAsk::Profiles(profiles) => {
                self.profiles_told(&profiles, ctx);
                ServiceAnswer::Told
            }
            ServiceAsk::AskElsewhere(users) => {
                match ctx.config.peers == Peers::Relay && ctx.bus.relay_up {
                    true => {
                        ctx.bus.elsewhere.asks(ctx.now_ms());
                        let message = RelayMessage::ConnectedAsked(users);
                        home_relay::tell(limits::USERS_BUCKET, &message, ctx);
                        ServiceAnswer::Asked
                    }
                    false => ServiceAnswer::Told,
                }
            }
            ServiceAsk::Connected(users) => {
                let now_ms = ctx.now_ms();
                let mut users = users;
                users.retain(|user| {
                    self.is_connected(*user) || ctx.bus.elsewhere.has(*user, now_ms)
                });
                ServiceAnswer::Connected(users)
            }
            ServiceAsk::Presence(user) => ServiceAnswer::Presence(self.presence.seen(user)),
            ServiceAsk::Write(op) => return self.write_for_service(id, op, ctx),
        };
        ctx.effects.push(Effect::Served(id, answer));
    }

    fn connections(&self, read: ConnectionsRead, ctx: &Context<'_>) -> ConnectionsPage {
        let mut page = ConnectionsPage::default();
        let places: Vec<u32> = match read.user {
            None => (read.from..self.table.len() as u32).collect(),
            Some(user) => {
                let own = self.users.get(&user).map_or(&[][..], Vec::as_slice);
                let mut places: Vec<u32> = own.iter().map(|conn| conn.index).collect();
                places.retain(|place| *place >= read.from);
                places.sort_unstable();
                places
            }
        };
        for place in places {
            let session = self.table.get(place as usize).and_then(Option::as_deref);
            let Some(session) = session else { continue };
            let State::Ready(ready) = &session.state else {
                continue;
            };
            if page.connections.len() == read.limit {
                page.next = Some(place);
                break;
            }
            page.connections.push(seen(place, session, ready, ctx));
        }
        page
    }

    /// Whether the user has a connection that is signed in.
    fn is_connected(&self, user: UserId) -> bool {
        let own = self.users.get(&user).map_or(&[][..], Vec::as_slice);
        own.iter().any(|conn| {
            let session = self.get(*conn);
            session.is_some_and(|session| matches!(session.state, State::Ready(_)))
        })
    }

    /// Ends the connection of this name.
    fn close_named(&mut self, name: &str, code: CloseCode, ctx: &mut Context<'_>) -> bool {
        let Some((_, place)) = place_in(name) else {
            return false;
        };
        let session = self.table.get(place as usize).and_then(Option::as_deref);
        let Some(session) = session else { return false };
        let State::Ready(ready) = &session.state else {
            return false;
        };
        let conn = ConnId {
            index: place,
            generation: session.generation,
        };
        if connection_name(ctx.shard, conn, ready.random) != name {
            return false;
        }
        ctx.stats.closed_ended += 1;
        self.close(conn, code, ctx);
        true
    }

    fn write_for_service(&mut self, id: AskId, op: Op, ctx: &mut Context<'_>) {
        let Op { actor, room, kind } = op;
        let Some((conn, request)) = self.guest_of_service(id, actor, ctx) else {
            return;
        };
        if let Err((code, message)) = self.write(conn, request, actor, room, kind, ctx) {
            self.refuse(conn, request, code, message, ctx);
        }
    }

    /// Sessions of a user end, as another shard or node told, or the store.
    pub fn ended(&mut self, end: SessionsEnd, ctx: &mut Context<'_>) {
        self.guests.forget(end.user);
        for conn in self.users.get(&end.user).cloned().unwrap_or_default() {
            let began = match self.get_mut(conn).map(|session| &mut session.state) {
                // What it reads may be from before or after.
                Some(State::Joining(joining)) if joining.version == 0 => {
                    joining.ends.push(end);
                    continue;
                }
                Some(State::Joining(joining)) => joining.began(),
                Some(State::Ready(ready)) => ready.began,
                Some(State::Fresh { .. } | State::Closing) | None => continue,
            };
            self.close_if_ended(conn, &began, &[end], ctx);
        }
        self.guests.forget(end.user);
    }

    /// Closes a connection that began so if one of these ends it; whether it did.
    pub(super) fn close_if_ended(
        &mut self,
        conn: ConnId,
        began: &Began,
        ends: &[SessionsEnd],
        ctx: &mut Context<'_>,
    ) -> bool {
        let Some(end) = ends.iter().find(|end| end.ends(began)) else {
            return false;
        };
        ctx.stats.closed_ended += 1;
        if let Some(State::Joining(joining)) = self.get(conn).map(|session| &session.state) {
            let request = joining.request;
            self.refuse(conn, request, code_of(end.code), ENDED, ctx);
        }
        self.close(conn, end.code, ctx);
        true
    }
}

/// What a request of a session that has ended is told.
pub(super) const ENDED: &str = "this session has ended";

/// How a request is refused where a connection would be closed so.
pub(super) fn code_of(close: CloseCode) -> ErrorCode {
    match close {
        CloseCode::Unauthenticated | CloseCode::TokenExpired => ErrorCode::Unauthenticated,
        CloseCode::Forbidden | CloseCode::UserDeleted => ErrorCode::Forbidden,
        _ => ErrorCode::Unavailable,
    }
}

fn seen(place: u32, session: &Session, ready: &Ready, ctx: &Context<'_>) -> ConnectionSeen {
    let conn = ConnId {
        index: place,
        generation: session.generation,
    };
    let age_ms = ctx.now_ms().saturating_sub(session.opened_ms);
    ConnectionSeen {
        conn,
        name: connection_name(ctx.shard, conn, ready.random),
        user: ready.user,
        client: ready.client.as_deref().map(str::to_owned),
        connected_at: UnixMs(ctx.now.unix.0.saturating_sub(age_ms)),
        token_expires_at: ready.expires_at,
        outbox_bytes: session.outbox.bytes(),
        address: None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_connection_is_named_by_its_shard_and_place() {
        let conn = ConnId {
            index: 42,
            generation: 3,
        };
        let name = connection_name(7, conn, 0xab);
        assert_eq!(name, "7-42-3-000000ab");
        assert_eq!(place_in(&name), Some((7, 42)));
        for wrong in ["", "7", "x-1", "7-x", "70000-1"] {
            assert_eq!(place_in(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn what_a_client_calls_itself_is_kept_in_short() {
        let info = |json: &str| sonic_rs::from_str::<ClientInfo>(json).expect("a client");
        let both = info(r#"{"name":"caffis-web","version":"1.0.0"}"#);
        assert_eq!(&*client_name(&both), "caffis-web 1.0.0");
        assert_eq!(&*client_name(&info(r#"{"name":"x"}"#)), "x");
        let long = info(&format!(r#"{{"name":"{}"}}"#, "ü".repeat(100)));
        assert_eq!(client_name(&long).chars().count(), limits::CLIENT_CHARS_MAX);
    }
}
