//! Who owns which slot of a Redis Cluster, as one of its nodes tells it.

use redis::aio::MultiplexedConnection;
use redis::{ConnectionAddr, ErrorKind, RedisError, ServerErrorKind, Value};

/// Slots of a cluster: a constant of Redis.
pub const SLOTS: usize = 16_384;

/// Where a node listens.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct Address {
    pub host: String,
    pub port: u16,
}

impl Address {
    /// Where this connection goes; `None` if it is not TCP, as no cluster's is.
    pub fn of(address: &ConnectionAddr) -> Option<Address> {
        let (host, port) = match address {
            ConnectionAddr::Tcp(host, port) => (host, port),
            ConnectionAddr::TcpTls { host, port, .. } => (host, port),
            _ => return None,
        };
        Some(Address {
            host: host.clone(),
            port: *port,
        })
    }

    /// The same way of connecting, to this address.
    pub fn reached_like(&self, other: &ConnectionAddr) -> ConnectionAddr {
        match other {
            ConnectionAddr::TcpTls {
                insecure,
                tls_params,
                ..
            } => ConnectionAddr::TcpTls {
                host: self.host.clone(),
                port: self.port,
                insecure: *insecure,
                tls_params: tls_params.clone(),
            },
            _ => ConnectionAddr::Tcp(self.host.clone(), self.port),
        }
    }
}

/// Each slot's master.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Topology {
    pub masters: Vec<Address>,
    /// By slot: a place in `masters`.
    owners: Vec<Option<u16>>,
}

impl Topology {
    /// The master of a slot, if it has one.
    pub fn owner(&self, slot: u16) -> Option<&Address> {
        let place = (*self.owners.get(usize::from(slot))?)?;
        self.masters.get(usize::from(place))
    }

    /// Whether every slot has a master.
    pub fn is_whole(&self) -> bool {
        self.owners.iter().all(Option::is_some)
    }

    /// From the answer to `CLUSTER SLOTS` of the node at `asked`, whose own address stands in for one
    /// that it does not know. `None` if it is none.
    fn parse(answer: &Value, asked: &Address) -> Option<Topology> {
        let mut found = Topology {
            masters: Vec::new(),
            owners: vec![None; SLOTS],
        };
        for range in list(answer)? {
            let [from, to, master, ..] = list(range)? else {
                return None;
            };
            let [host, port, ..] = list(master)? else {
                return None;
            };
            let host = match text(host) {
                Some(host) if !host.is_empty() && host != "?" => host.to_owned(),
                _ => asked.host.clone(),
            };
            let port = u16::try_from(number(port)?).ok()?;
            let address = Address { host, port };
            let known = found.masters.iter().position(|known| *known == address);
            let place = known.unwrap_or_else(|| {
                found.masters.push(address);
                found.masters.len() - 1
            });
            let slots = usize::try_from(number(from)?).ok()?..=usize::try_from(number(to)?).ok()?;
            let place = u16::try_from(place).ok()?;
            found.owners.get_mut(slots)?.fill(Some(place));
        }
        Some(found)
    }
}

fn list(value: &Value) -> Option<&[Value]> {
    match value {
        Value::Array(values) => Some(values),
        _ => None,
    }
}

fn text(value: &Value) -> Option<&str> {
    match value {
        Value::BulkString(bytes) => std::str::from_utf8(bytes).ok(),
        Value::SimpleString(text) => Some(text),
        _ => None,
    }
}

fn number(value: &Value) -> Option<i64> {
    match value {
        Value::Int(number) => Some(*number),
        _ => None,
    }
}

/// What a node says of its cluster.
#[derive(Debug)]
pub enum Answer {
    /// It is none, or one that does not know sharded pub/sub (before Redis 7).
    Plain,
    /// It is one; `settled` is false while this node does not see a majority, or not every slot served: what
    /// it says of the owners may be old.
    Cluster { topology: Topology, settled: bool },
}

/// Asks the node at `asked`.
///
/// # Errors
/// No answer, or one that makes no sense; [`Answer::Plain`] is not one.
pub async fn ask(
    connection: &mut MultiplexedConnection,
    asked: &Address,
) -> Result<Answer, RedisError> {
    let slots = redis::cmd("CLUSTER").arg("SLOTS").to_owned();
    let slots: Value = match slots.query_async(connection).await {
        Ok(slots) => slots,
        Err(error) if says_no_cluster(&error) => return Ok(Answer::Plain),
        Err(error) => return Err(error),
    };
    let known = redis::cmd("COMMAND")
        .arg("INFO")
        .arg("ssubscribe")
        .to_owned();
    let known: Value = known.query_async(connection).await?;
    if matches!(list(&known), Some([Value::Nil] | [])) {
        return Ok(Answer::Plain);
    }
    let info: String = redis::cmd("CLUSTER")
        .arg("INFO")
        .query_async(connection)
        .await?;
    let topology = Topology::parse(&slots, asked).ok_or_else(|| {
        RedisError::from((
            ErrorKind::UnexpectedReturnType,
            "no answer to CLUSTER SLOTS",
        ))
    })?;
    Ok(Answer::Cluster {
        topology,
        settled: info.contains("cluster_state:ok"),
    })
}

/// Whether this is the answer of a Redis that is no cluster, or lets nobody see it.
fn says_no_cluster(error: &RedisError) -> bool {
    error.kind() == ErrorKind::Server(ServerErrorKind::NoPerm)
        || error.kind() == ErrorKind::Server(ServerErrorKind::ResponseError)
            && error.detail().is_some_and(|detail| {
                detail.contains("cluster support disabled") || detail.contains("unknown command")
            })
}

/// The slot of a channel: CRC16 (XMODEM) of it, or of what stands between its first braces.
pub fn slot(channel: &str) -> u16 {
    let tag = channel
        .split_once('{')
        .and_then(|(_, after)| after.split_once('}'));
    let hashed = match tag {
        Some((tag, _)) if !tag.is_empty() => tag,
        _ => channel,
    };
    let crc = hashed.bytes().fold(0_u16, |crc, byte| {
        (0..8).fold(crc ^ u16::from(byte) << 8, |crc, _| {
            let carry = crc & 0x8000 != 0;
            crc << 1 ^ if carry { 0x1021 } else { 0 }
        })
    });
    crc % SLOTS as u16
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bulk(text: &str) -> Value {
        Value::BulkString(text.as_bytes().to_vec())
    }

    fn range(from: i64, to: i64, host: Value, port: i64) -> Value {
        let master = Value::Array(vec![host, Value::Int(port), bulk("id")]);
        Value::Array(vec![Value::Int(from), Value::Int(to), master])
    }

    #[test]
    fn slots_are_those_of_redis() {
        // The check value of CRC16 XMODEM, and examples of the specification of Redis Cluster.
        assert_eq!(slot("123456789"), 0x31c3);
        assert_eq!(slot("foo"), 12_182);
        assert_eq!(slot("{user1000}.following"), slot("user1000"));
        assert_eq!(slot("foo{}{bar}"), slot("foo{}{bar}"));
        assert_ne!(slot("foo{}{bar}"), slot("bar"));
        assert_eq!(slot("foo{{bar}}zap"), slot("{bar"));
        assert_eq!(slot("foo{bar}{zap}"), slot("bar"));
    }

    #[test]
    fn the_answer_of_a_node_is_understood_or_refused() {
        let asked = Address {
            host: "seed".to_owned(),
            port: 1,
        };
        let answer = Value::Array(vec![
            range(0, 5, bulk("a"), 7000),
            range(6, 16_383, Value::Nil, 7001),
            range(7, 7, bulk("a"), 7000),
        ]);
        let topology = Topology::parse(&answer, &asked).expect("understood");
        assert!(topology.is_whole());
        assert_eq!(topology.masters.len(), 2);
        assert_eq!(topology.owner(7).map(|it| &*it.host), Some("a"));
        assert_eq!(topology.owner(8).map(|it| &*it.host), Some("seed"));
        let partial = Value::Array(vec![range(0, 5, bulk("?"), 7000)]);
        let topology = Topology::parse(&partial, &asked).expect("understood");
        assert!(!topology.is_whole());
        assert_eq!(topology.owner(6), None);
        for nonsense in [
            Value::Nil,
            Value::Array(vec![Value::Int(1)]),
            Value::Array(vec![range(0, 16_384, bulk("a"), 7000)]),
            Value::Array(vec![range(9, 3, bulk("a"), 7000)]),
            Value::Array(vec![range(-1, 3, bulk("a"), 7000)]),
            Value::Array(vec![range(0, 3, bulk("a"), 70_000)]),
        ] {
            assert_eq!(Topology::parse(&nonsense, &asked), None, "{nonsense:?}");
        }
    }
}
