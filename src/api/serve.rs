//! Takes the connections that the shards hand over, and serves them on one thread.
//!
//! Invariants: at most [`CONNECTIONS_MAX`] at once, and one more is given back to the shard; none
//! lasts longer than [`CONNECTION_MAX`], whatever its peer does or leaves undone.

use super::Parts;
use super::routes::{Shared, routes};
use axum::Router;
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use std::io;
use std::net::TcpStream;
use std::pin::{Pin, pin};
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
/// Longest time to end the answer under way.
const ENDING_MAX: Duration = Duration::from_secs(2);
/// Bytes buffered of one request's head and one answer.
const BUFFER_BYTES_MAX: usize = 64 << 10;

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

/// Starts the control plane on a thread of its own. The node need not be up yet.
///
/// # Errors
/// No thread, or no descriptors for it.
pub fn start(parts: Parts) -> io::Result<(ControlPlane, Door)> {
    // As many places as permits: a permit holder always finds room.
    let (handed, connections) = mpsc::channel(CONNECTIONS_MAX);
    let (stop, stopping) = watch::channel(false);
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_io()
        .enable_time()
        .build()?;
    let thread = std::thread::Builder::new()
        .name("control".to_owned())
        .spawn(move || {
            let router = routes(&Arc::new(Shared::new(parts)));
            runtime.block_on(accept(connections, stopping, router));
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
    router: Router,
) {
    let mut tasks = JoinSet::new();
    let told = stopping.clone();
    loop {
        tokio::select! {
            handed = connections.recv() => match handed {
                Some(handed) => {
                    tasks.spawn(serve(handed, router.clone(), told.clone()));
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

async fn serve(handed: Handed, router: Router, mut stopping: watch::Receiver<bool>) {
    let Handed {
        stream,
        read,
        permit,
    } = handed;
    let stream = match tokio::net::TcpStream::from_std(stream) {
        Ok(stream) => stream,
        Err(error) => {
            tracing::debug!(%error, "cannot serve a connection");
            return;
        }
    };
    let stream = TokioIo::new(Prefixed::new(read, stream));
    let mut connection = pin!(
        http1::Builder::new()
            .timer(TokioTimer::new())
            .header_read_timeout(HEAD_MAX)
            .max_buf_size(BUFFER_BYTES_MAX)
            .serve_connection(stream, TowerToHyperService::new(router))
    );
    let ended = tokio::select! {
        ended = connection.as_mut() => Some(ended),
        () = tokio::time::sleep(CONNECTION_MAX) => None,
        _ = stopping.wait_for(|stop| *stop) => None,
    };
    let ended = match ended {
        Some(ended) => Some(ended),
        None => {
            connection.as_mut().graceful_shutdown();
            tokio::time::timeout(ENDING_MAX, connection).await.ok()
        }
    };
    if let Some(Err(error)) = ended {
        // The peer's fault, or the network's.
        tracing::debug!(%error, "a connection ended");
    }
    drop(permit);
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
