//! Connections and listeners of `turmoil`, as the world takes them.
//!
//! `turmoil` finds the socket of a stream among those of the host that runs, so a stream is used and dropped on its own machine only. And it
//! accepts when the server's process does; a kernel accepts by itself, also while the process is frozen, which a task of the
//! machine does here.

use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::sync::mpsc;
use tokio::task::AbortHandle;
use turmoil::net::{TcpListener, TcpStream};

use super::super::{BoxFuture, Listener, Machine, Net, Stream};
use super::Tick;

/// A connection.
pub(super) struct Socket {
    tick: Arc<Tick>,
    machine: Machine,
    stream: Option<TcpStream>,
    /// From and to which port of its own machine, if it does not leave it.
    inside: Option<(u16, u16)>,
}

impl Socket {
    /// A connection of this machine.
    pub(super) fn new(tick: Arc<Tick>, machine: Machine, stream: TcpStream) -> Self {
        let inside = match (stream.local_addr(), stream.peer_addr()) {
            (Ok(local), Ok(peer)) if local.ip() == peer.ip() => Some((local.port(), peer.port())),
            _ => None,
        };
        Self {
            tick,
            machine,
            stream: Some(stream),
            inside,
        }
    }

    fn stream(&mut self) -> io::Result<Pin<&mut TcpStream>> {
        debug_assert!(
            self.tick.here(self.machine),
            "a connection of {:?} is used elsewhere",
            self.machine
        );
        self.stream
            .as_mut()
            .map(Pin::new)
            .ok_or_else(|| io::ErrorKind::NotConnected.into())
    }
}

impl Drop for Socket {
    /// The peer hears of it, whoever drops it.
    fn drop(&mut self) {
        let stream = self.stream.take();
        if !self.tick.here(self.machine) && !self.tick.over.load(Ordering::Relaxed) {
            let later = async move { drop(stream) };
            drop(self.tick.start(self.machine, Box::pin(later)));
        }
    }
}

impl AsyncRead for Socket {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        self.stream()?.poll_read(cx, buffer)
    }
}

impl AsyncWrite for Socket {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let polled = self.stream()?.poll_write(cx, bytes);
        if let (Some((from, to)), Poll::Ready(Ok(length))) = (self.inside, &polled) {
            // No link sees it.
            let place = self.machine.0 as u64;
            let ports = u64::from(from) << 16 | u64::from(to);
            let header = [self.tick.now(), place, ports];
            self.tick.state().digest.note(&header, &bytes[..*length]);
        }
        polled
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.stream()?.poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.stream()?.poll_shutdown(cx)
    }
}

/// A port that is taken, until this is dropped.
pub(super) struct Claim {
    tick: Arc<Tick>,
    at: (Machine, u16),
}

impl Claim {
    /// Takes it.
    ///
    /// # Errors
    /// Somebody has it.
    pub(super) fn new(tick: Arc<Tick>, at: (Machine, u16)) -> io::Result<Self> {
        if tick.state().listening.insert(at) {
            Ok(Self { tick, at })
        } else {
            Err(io::ErrorKind::AddrInUse.into())
        }
    }
}

impl Drop for Claim {
    fn drop(&mut self) {
        self.tick.state().listening.remove(&self.at);
    }
}

/// A listener: what the kernel has accepted, and the task that accepts.
pub(super) struct Door {
    arrived: mpsc::UnboundedReceiver<(Stream, SocketAddr)>,
    kernel: AbortHandle,
    _claim: Claim,
}

impl Door {
    /// Accepts from now on.
    pub(super) fn open(claim: Claim, inner: TcpListener) -> Self {
        let (sender, arrived) = mpsc::unbounded_channel();
        let (tick, on) = (Arc::clone(&claim.tick), claim.at.0);
        let accepting = async move {
            while let Ok((stream, peer)) = inner.accept().await {
                // Nobody takes it any more: the peer hears of that.
                let _ = sender.send((tick.socket(on, stream), peer));
            }
        };
        Self {
            arrived,
            kernel: claim.tick.start(on, Box::pin(accepting)),
            _claim: claim,
        }
    }
}

impl Listener for Door {
    fn accept(&mut self) -> BoxFuture<'_, io::Result<(Stream, SocketAddr)>> {
        Box::pin(async {
            self.arrived
                .recv()
                .await
                .ok_or_else(|| io::ErrorKind::NotConnected.into())
        })
    }
}

impl Drop for Door {
    fn drop(&mut self) {
        self.kernel.abort();
    }
}
