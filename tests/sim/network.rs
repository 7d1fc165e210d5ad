//! Sockets and what the clients do with them: bytes, frames, ends, and the way to some node again.

use crate::client::Wire;
use crate::node::At;
use crate::truth::Truth;
use crate::world::World;
use caffis_chat::chat::port::{Identity, IdentityError};
use caffis_chat::chat::{ConnId, Input};
use caffis_chat::protocol::{CloseCode, UnixMs};

impl World {
    pub fn wire_mut(&mut self, at: At, conn: ConnId) -> Option<&mut Wire> {
        self.clients
            .iter_mut()
            .filter_map(|client| client.wire.as_mut())
            .find(|wire| wire.at == at && wire.conn == conn)
    }

    pub fn pick_client(&mut self) -> usize {
        self.rng.below(self.clients.len())
    }

    pub fn each(&mut self) -> Vec<usize> {
        match self.calm {
            true => (0..self.clients.len()).collect(),
            false => vec![self.pick_client()],
        }
    }

    /// Bytes go from an outbox into the socket, as far as the client reads.
    pub fn flush(&mut self) -> Result<(), String> {
        for place in self.each() {
            let stalled = self.clients[place].stalled_until_us > self.now_us && !self.calm;
            let part = self.rng.below(2_000) + 1;
            let Some(wire) = &mut self.clients[place].wire else {
                continue;
            };
            let (at, conn) = (wire.at, wire.conn);
            let Some(node) = &mut self.hosts[at.host].node else {
                return Err(format!("client {place} is connected to nothing"));
            };
            let shard = at.shard;
            let room = if stalled {
                1_024usize.saturating_sub(wire.to_client.len())
            } else {
                1 << 20
            };
            let mut buffer = Vec::new();
            if let Some(outbox) = node.shards[shard].outbox(conn) {
                outbox.fill(
                    &mut buffer,
                    if self.calm { 1 << 20 } else { part.min(room) },
                );
                assert!(
                    wire.dirty || outbox.is_empty(),
                    "an outbox that nobody flushes"
                );
            }
            let written = buffer.len();
            wire.to_client.append(&mut buffer);
            let mut effects = std::mem::take(&mut self.effects);
            let now = self.now(at.host);
            let Some(node) = &mut self.hosts[at.host].node else {
                return Ok(());
            };
            if written > 0 {
                node.shards[shard].written(now, conn, written, &mut effects);
            }
            let empty = node.shards[shard]
                .outbox(conn)
                .is_none_or(|outbox| outbox.is_empty());
            if let Some(wire) = &mut self.clients[place].wire {
                // Said once, until it was empty again.
                wire.dirty = !empty;
            }
            // What the step asked for may make it dirty again.
            self.perform(at, effects)?;
            let Some(wire) = &self.clients[place].wire else {
                continue;
            };
            if let Some(code) = wire.close
                && (empty || stalled)
            {
                self.read_all(place)?;
                self.hang_up(place, Some(code))?;
            }
        }
        Ok(())
    }

    /// A client reads.
    pub fn read(&mut self) -> Result<(), String> {
        for place in self.each() {
            if self.clients[place].stalled_until_us <= self.now_us || self.calm {
                self.read_all(place)?;
            }
        }
        Ok(())
    }

    pub fn read_all(&mut self, place: usize) -> Result<(), String> {
        loop {
            let Some(wire) = &mut self.clients[place].wire else {
                return Ok(());
            };
            let Some((text, length)) = frame_of(&wire.to_client)? else {
                return Ok(());
            };
            wire.to_client.drain(..length);
            if self.trace {
                let (at, conn) = (wire.at, wire.conn);
                eprintln!(
                    "{} client {place} at {at:?} {conn:?} hears {text}",
                    self.now_us
                );
            }
            if self.validate {
                crate::schema::validate_server_frame(&text)?;
            }
            if self.is_of_a_lost_history(place, &text) {
                // Nothing can be said of what it hears until it learns that all is new.
                let mut any = Truth::default();
                if self.clients[place].frame(&text, &mut any).is_err() {
                    self.hang_up(place, None)?;
                }
                continue;
            }
            let client = &mut self.clients[place];
            let acked_before = self.truth.acked.len();
            client.frame(&text, &mut self.truth)?;
            self.note_blocks();
            self.check_receipt(&text)?;
            if self.truth.acked.len() > acked_before {
                self.check_newest_ack(place, &text)?;
            }
        }
    }

    /// A frame of a client arrives.
    pub fn hear(&mut self) -> Result<(), String> {
        for place in self.each() {
            let Some(wire) = &mut self.clients[place].wire else {
                continue;
            };
            let count = if self.calm {
                wire.to_server.len()
            } else {
                wire.to_server.len().min(2)
            };
            let (at, conn) = (wire.at, wire.conn);
            let texts: Vec<String> = wire.to_server.drain(..count).collect();
            for text in texts {
                if self.trace {
                    eprintln!(
                        "{} client {place} at {at:?} {conn:?} says {text}",
                        self.now_us
                    );
                }
                if self.validate {
                    crate::schema::validate_client_frame(&text)?;
                }
                self.input(at, Input::Text(conn, &text))?;
            }
        }
        Ok(())
    }

    /// A connection ends, from either side.
    pub fn hang_up(&mut self, place: usize, code: Option<u16>) -> Result<(), String> {
        let client = &mut self.clients[place];
        let Some(wire) = client.wire.take() else {
            return Ok(());
        };
        if code == Some(CloseCode::UserDeleted as u16) {
            if !client.erased {
                return Err(format!("{} is told to be erased", client.user));
            }
            client.gone = true;
        }
        *client.closes.entry(code.unwrap_or(0)).or_default() += 1;
        client.connect_at_us = self.now_us + self.rng.below(500_000) as u64;
        let (at, conn) = (wire.at, wire.conn);
        self.input(at, Input::Closed(conn))?;
        if let Some(node) = &mut self.hosts[at.host].node {
            let next = ConnId {
                index: conn.index,
                generation: conn.generation + 1,
            };
            node.free[at.shard].push(next);
        }
        Ok(())
    }

    pub fn connect(&mut self, place: usize) -> Result<(), String> {
        let Some(host) = self.pick_running(|node| !node.draining) else {
            return Ok(());
        };
        let shard = self.rng.below(self.hosts[host].shards);
        let at = At { host, shard };
        let Some(node) = &mut self.hosts[host].node else {
            return Ok(());
        };
        let conn = match node.free[shard].pop() {
            Some(conn) => conn,
            None => {
                node.places[shard] += 1;
                ConnId {
                    index: node.places[shard] - 1,
                    generation: 0,
                }
            }
        };
        let lives_ms = if self.rng.permille(50) && !self.calm {
            20_000
        } else {
            100_000_000
        };
        let expires_at = self.unix().0 + lives_ms;
        let client = &mut self.clients[place];
        if !client.rooms.is_empty() && client.last_host != host {
            self.report.moves += 1;
        }
        client.last_host = host;
        client.wire = Some(Wire::new(conn, at));
        client.auth(expires_at);
        self.input(at, Input::Opened(conn))
    }
}

/// The simulated identity: a token is `user:expiry`.
pub fn identify(token: &str, now: UnixMs) -> Result<Identity, IdentityError> {
    let (user, expires_at) = token.split_once(':').ok_or(IdentityError::Invalid)?;
    let user = user.parse().map_err(|_| IdentityError::Invalid)?;
    let expires_at = UnixMs(expires_at.parse().map_err(|_| IdentityError::Invalid)?);
    if expires_at <= now {
        return Err(IdentityError::Expired);
    }
    Ok(Identity {
        user,
        expires_at,
        name: Some(format!("{user}")),
        picture: None,
        issued_at: None,
        sid: None,
    })
}

/// The first whole text frame in these bytes, and its length.
fn frame_of(bytes: &[u8]) -> Result<Option<(String, usize)>, String> {
    let [first, second, ..] = bytes else {
        return Ok(None);
    };
    if *first != 0x81 {
        return Err(format!("not a text frame: {first:#x}"));
    }
    let (header, length) = match second {
        126 if bytes.len() >= 4 => (4, usize::from(bytes[2]) << 8 | usize::from(bytes[3])),
        127 if bytes.len() >= 10 => {
            let length = bytes[2..10]
                .iter()
                .fold(0u64, |sum, byte| sum << 8 | u64::from(*byte));
            (10, length as usize)
        }
        126 | 127 => return Ok(None),
        short => (2, usize::from(*short)),
    };
    match bytes.get(header..header + length) {
        Some(payload) => {
            let text = String::from_utf8(payload.to_vec()).map_err(|error| error.to_string())?;
            Ok(Some((text, header + length)))
        }
        None => Ok(None),
    }
}
