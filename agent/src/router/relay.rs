//! Passing bytes both ways between a client and the server that took it.

use std::io;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::sync::mpsc;

use super::wire::{Opening, Told};
use crate::net::Stream;

/// Reads into `buffer`; gives what came.
fn poll_more<'a>(
    stream: &mut Stream,
    cx: &mut Context<'_>,
    buffer: &'a mut ReadBuf<'_>,
) -> Poll<io::Result<&'a [u8]>> {
    let before = buffer.filled().len();
    ready!(Pin::new(stream).poll_read(cx, buffer))?;
    Poll::Ready(Ok(&buffer.filled()[before..]))
}

/// The client's side: counts what passes.
pub(super) struct Counted<'a> {
    pub(super) stream: Stream,
    pub(super) sent: &'a AtomicU64,
    pub(super) received: &'a AtomicU64,
    /// Set whenever something passes.
    pub(super) busy: &'a AtomicBool,
}

impl AsyncRead for Counted<'_> {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let read = ready!(poll_more(&mut this.stream, cx, buffer))?;
        this.sent.fetch_add(read.len() as u64, Ordering::Relaxed);
        this.busy.store(true, Ordering::Relaxed);
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Counted<'_> {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        let count = ready!(Pin::new(&mut this.stream).poll_write(cx, bytes))?;
        this.received.fetch_add(count as u64, Ordering::Relaxed);
        this.busy.store(true, Ordering::Relaxed);
        Poll::Ready(Ok(count))
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_shutdown(cx)
    }
}

/// The server's side: what it says first has been read already, and the start of the session is looked into as it passes.
pub(super) struct Served {
    pub(super) stream: Stream,
    pub(super) opening: Opening,
    pub(super) told: mpsc::UnboundedSender<Told>,
    /// The client wants to write: a standby will not do.
    pub(super) must_write: bool,
}

impl Served {
    /// Looks into what passes. Fails if it must not pass.
    pub(super) fn look(&mut self, bytes: &[u8]) -> io::Result<()> {
        if self.opening.is_done() {
            return Ok(());
        }
        let mut standby = false;
        self.opening.take(bytes, |fact| {
            standby |= fact == Told::Standby;
            // Whoever listened has gone when the session ends.
            let _ = self.told.send(fact);
        });
        if standby && self.must_write {
            return Err(io::Error::other("its server is a standby"));
        }
        Ok(())
    }
}

impl AsyncRead for Served {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let read = ready!(poll_more(&mut this.stream, cx, buffer))?;
        Poll::Ready(this.look(read))
    }
}

impl AsyncWrite for Served {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.get_mut().stream).poll_write(cx, bytes)
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_shutdown(cx)
    }
}

/// Returns when nothing has passed for `limit`, at the latest half of it later.
pub(super) async fn idle(busy: &AtomicBool, limit: Option<Duration>) {
    let Some(limit) = limit else {
        return std::future::pending().await;
    };
    loop {
        busy.store(false, Ordering::Relaxed);
        tokio::time::sleep(limit).await;
        if !busy.load(Ordering::Relaxed) {
            return;
        }
    }
}
