//! Takes the connections that the shards hand over, and serves them on one thread.
//!
//! Invariants: at most [`CONNECTIONS_MAX`] at once, and one more is given back to the shard; none
//! lasts longer than [`CONNECTION_MAX`], whatever its peer does or leaves undone, unless a file or an archive moves on
//! it, which has bounds of its own.

use super::Parts;
use super::rejoin::{self, Rejoin};
use super::routes::{Shared, routes};
use super::store_client::StoreClient;
use super::transfers::Transfers;
use super::{hooks, upkeep};
use axum::Router;
use hyper::server::conn::http1;
use hyper::service::{Service, service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use std::io::{self, Write};
use std::net::{IpAddr, TcpStream};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::thread::JoinHandle;
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc, watch};
use tokio::task::JoinSet;

/// Connections at once.
pub const CONNECTIONS_MAX: usize = 256;
/// Longest wait for the head of a request, the first and every later one.
pub const HEAD_MAX: Duration = Duration::from_secs(10);
/// Longest life of a connection. Then the answer under way is ended, and the peer connects again.
pub const CONNECTION_MAX: Duration = Duration::from_secs(60);
/// Threads beside for what blocks.
const BLOCKING_MAX: usize = 16;
/// Longest time to end the answer under way.
const ENDING_MAX: Duration = Duration::from_secs(2);
/// Bytes buffered of one request's head and one answer.
const BUFFER_BYTES_MAX: usize = 64 << 10;

/// The answer when no shard has room for a connection that leaves.
const REFUSED: &[u8] = b"HTTP/1.1 503 Service Unavailable\r\ncontent-length: 0\r\n\
    retry-after: 5\r\nconnection: close\r\n\r\n";

/// Who is at the other end of a request's connection.
#[derive(Clone, Copy, Debug)]
pub struct Peer(pub IpAddr);

struct Handed {
    stream: TcpStream,
    read: Vec<u8>,
    permit: OwnedSemaphorePermit,
}

/// Where connections are handed over; any thread may, and never waits.
#[derive(Clone)]
pub struct Door {
    places: Arc<Semaphore>,
    handed: mpsc::Sender<Handed>,
}

impl Door {
    /// Takes a connection in non-blocking mode, with what was read of it.
    ///
    /// # Errors
    /// Gives it back when there are [`CONNECTIONS_MAX`], or the control plane is gone.
    pub fn hand_over(&self, stream: TcpStream, read: Vec<u8>) -> Result<(), TcpStream> {
        let Ok(permit) = self.places.clone().try_acquire_owned() else {
            return Err(stream);
        };
        let handed = Handed {
            stream,
            read,
            permit,
        };
        self.handed
            .try_send(handed)
            .map_err(|error| error.into_inner().stream)
    }
}

/// The control plane, running.
pub struct ControlPlane {
    stop: watch::Sender<bool>,
    thread: Option<JoinHandle<()>>,
}

/// Work that goes on beside the answers, as long as the control plane runs.
pub type Work = Pin<Box<dyn Future<Output = ()> + Send>>;

/// Starts the control plane on a thread of its own, and this work beside it. The node need not be up yet.
///
/// # Errors
/// No thread, or no descriptors for it.
pub fn start(parts: Parts, work: Vec<Work>) -> io::Result<(ControlPlane, Door)> {
    // As many places as permits: a permit holder always finds room.
    let (handed, connections) = mpsc::channel(CONNECTIONS_MAX);
    let (stop, stopping) = watch::channel(false);
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_io()
        .enable_time()
        // What blocks there is names that are looked up, and files: more at once would not be quicker.
        .max_blocking_threads(BLOCKING_MAX)
        .build()?;
    let thread = std::thread::Builder::new()
        .name("control".to_owned())
        .spawn(move || {
            let store = StoreClient::new(parts.store.clone());
            let upkeep = parts.upkeep.clone().map(|own| (own, store));
            let hooks = parts.hooks.clone();
            let rejoin = parts.rejoin.clone();
            let shared = Arc::new(Shared::new(parts));
            let serving = Serving {
                rejoin,
                router: routes(&shared),
            };
            for work in work {
                runtime.spawn(work);
            }
            if let Some((parts, store)) = upkeep {
                runtime.spawn(upkeep::run(parts, store));
            }
            if let Some(parts) = hooks {
                runtime.spawn(hooks::run(parts, shared.store.clone(), shared.node.clone()));
            }
            if shared.webhooks.hears_of_accounts() {
                runtime.spawn(shared.webhooks.clone().tell_profiles());
            }
            drop(shared);
            // What still goes on then ends with the runtime.
            runtime.block_on(accept(connections, stopping, serving));
        })?;
    let plane = ControlPlane {
        stop,
        thread: Some(thread),
    };
    let door = Door {
        places: Arc::new(Semaphore::new(CONNECTIONS_MAX)),
        handed,
    };
    Ok((plane, door))
}

impl Drop for ControlPlane {
    /// Ends the answers under way, and then the thread.
    fn drop(&mut self) {
        let _told = self.stop.send(true);
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            tracing::error!("the control plane had panicked");
        }
    }
}

async fn accept(
    mut connections: mpsc::Receiver<Handed>,
    mut stopping: watch::Receiver<bool>,
    serving: Serving,
) {
    let mut tasks = JoinSet::new();
    let told = stopping.clone();
    loop {
        tokio::select! {
            handed = connections.recv() => match handed {
                Some(handed) => {
                    tasks.spawn(serve(handed, serving.clone(), told.clone()));
                }
                None => break,
            },
            _ = stopping.wait_for(|stop| *stop) => break,
            // Reaps what has ended, so that the set holds only what lives.
            Some(_) = tasks.join_next() => (),
        }
    }
    while tasks.join_next().await.is_some() {}
}

/// What each connection is served with.
#[derive(Clone)]
struct Serving {
    router: Router,
    rejoin: Arc<Rejoin>,
}

async fn serve(handed: Handed, serving: Serving, mut stopping: watch::Receiver<bool>) {
    let Handed {
        stream,
        read,
        permit,
    } = handed;
    let peer = stream.peer_addr().ok().map(|address| Peer(address.ip()));
    let stream = match tokio::net::TcpStream::from_std(stream) {
        Ok(stream) => stream,
        Err(error) => {
            tracing::debug!(%error, "cannot serve a connection");
            return;
        }
    };
    let stream = TokioIo::new(Prefixed::new(read, stream));
    let (upgrades, mut upgrade) = mpsc::channel(1);
    let transfers = Transfers::default();
    let of_requests = transfers.clone();
    let router = TowerToHyperService::new(serving.router);
    let service = service_fn(move |mut request: hyper::Request<hyper::body::Incoming>| {
        if let Some(peer) = peer {
            request.extensions_mut().insert(peer);
        }
        request.extensions_mut().insert(of_requests.clone());
        // No answer is made to an upgrade here: the shard's is the one.
        let leaves = rejoin::head(&request).is_some_and(|head| upgrades.try_send(head).is_ok());
        let answer = (!leaves).then(|| router.call(request));
        async move {
            match answer {
                Some(answer) => answer.await,
                None => std::future::pending().await,
            }
        }
    });
    let mut connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_MAX)
        .max_buf_size(BUFFER_BYTES_MAX)
        .serve_connection(stream, service);
    let ended = tokio::select! {
        // First, so that earlier answers are written before an upgrade is looked for.
        biased;
        ended = &mut connection => Some(ended),
        Some(head) = upgrade.recv() => {
            leave(connection.into_parts(), head, serving.rejoin.as_ref());
            return;
        }
        () = transfers.end(CONNECTION_MAX) => None,
        _ = stopping.wait_for(|stop| *stop) => None,
    };
    let ended = match ended {
        Some(ended) => Some(ended),
        None => {
            Pin::new(&mut connection).graceful_shutdown();
            tokio::time::timeout(ENDING_MAX, connection).await.ok()
        }
    };
    if let Some(Err(error)) = ended {
        // The peer's fault, or the network's.
        tracing::debug!(%error, "a connection ended");
    }
    drop(permit);
}

/// Gives a connection to a shard: the head of its upgrade, and what was read behind it.
fn leave<S>(
    parts: http1::Parts<TokioIo<Prefixed<tokio::net::TcpStream>>, S>,
    head: Vec<u8>,
    rejoin: &Rejoin,
) {
    let Prefixed {
        read,
        given,
        stream,
    } = parts.io.into_inner();
    let mut bytes = head;
    bytes.extend_from_slice(&parts.read_buf);
    bytes.extend_from_slice(&read[given..]);
    match stream.into_std() {
        Ok(stream) => {
            if let Err(mut refused) = rejoin(stream, bytes) {
                // An empty socket takes these few bytes, or it is broken.
                let _told = refused.write_all(REFUSED);
            }
        }
        Err(error) => tracing::debug!(%error, "cannot give a connection to a shard"),
    }
}

/// A stream of which some bytes have been read already: they come first.
struct Prefixed<S> {
    read: Vec<u8>,
    given: usize,
    stream: S,
}

impl<S> Prefixed<S> {
    fn new(read: Vec<u8>, stream: S) -> Prefixed<S> {
        Prefixed {
            read,
            given: 0,
            stream,
        }
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Prefixed<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let rest = &self.read[self.given..];
        if rest.is_empty() {
            return Pin::new(&mut self.stream).poll_read(context, buffer);
        }
        let length = rest.len().min(buffer.remaining());
        buffer.put_slice(&rest[..length]);
        self.given += length;
        if self.given == self.read.len() {
            (self.read, self.given) = (Vec::new(), 0);
        }
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Prefixed<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(context, bytes)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(context, slices)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}
