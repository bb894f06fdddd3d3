//! A replication connection to the own server, for what no SQL function tells.
//!
//! It is one more parameter in the startup packet, and tokio-postgres has no word for it: so the packet gets it on its way. All else, the
//! authentication most of all, is as on any other connection. To start psql for it costs 20 ms of processor time, in the very moment
//! in which every replica of a lost primary is asked where it stands.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// The parameter and its value.
const REPLICATION: &[u8] = b"replication\0true\0";

/// Of the packet's length, and of the protocol's version.
const HEAD: usize = 8;

/// A stream to a server whose first message asks for a walsender.
#[derive(Debug)]
pub(super) struct ToWalsender<S> {
    stream: S,
    /// The startup packet with the parameter, once it is known.
    packet: Option<Vec<u8>>,
    /// So many bytes of it have been sent.
    sent: usize,
}

impl<S> ToWalsender<S> {
    pub(super) fn new(stream: S) -> Self {
        Self {
            stream,
            packet: None,
            sent: 0,
        }
    }
}

/// The startup packet (its length, the version, parameters, a zero) with one parameter more.
fn asking(packet: &[u8]) -> io::Result<Vec<u8>> {
    let wrong = || {
        io::Error::new(
            io::ErrorKind::InvalidInput,
            "the startup packet does not come whole",
        )
    };
    let (head, parameters) = packet.split_at_checked(HEAD).ok_or_else(wrong)?;
    let (length, version) = head.split_at(4);
    let size = |length: usize| u32::try_from(length).map_err(io::Error::other);
    if length != size(packet.len())?.to_be_bytes() {
        return Err(wrong());
    }
    let length = size(packet.len() + REPLICATION.len())?.to_be_bytes();
    Ok([&length, version, REPLICATION, parameters].concat())
}

impl<S: AsyncWrite + Unpin> ToWalsender<S> {
    /// Sends what is left of the startup packet.
    fn begin(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let packet = self.packet.as_deref().unwrap_or_default();
        while self.sent < packet.len() {
            let sent = ready!(Pin::new(&mut self.stream).poll_write(cx, &packet[self.sent..]))?;
            if sent == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            self.sent += sent;
        }
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for ToWalsender<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        into: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(cx, into)
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for ToWalsender<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        if self.packet.is_none() {
            self.packet = Some(asking(bytes)?);
            return Poll::Ready(Ok(bytes.len()));
        }
        ready!(self.begin(cx))?;
        Pin::new(&mut self.stream).poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.begin(cx))?;
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.begin(cx))?;
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use super::*;

    const PACKET: &[u8] = b"\0\0\0\x13\0\x03\0\0user\0amy\0\0\0";

    #[tokio::test]
    async fn the_first_packet_alone_is_changed() {
        // A pipe of one byte: whatever is written goes in pieces.
        let (ours, mut theirs) = tokio::io::duplex(1);
        let mut stream = ToWalsender::new(ours);
        let talk = async {
            stream
                .write_all(&PACKET[..PACKET.len() - 1])
                .await
                .expect_err("cut short");
            stream.write_all(PACKET).await.expect("it is open");
            stream.write_all(b"more").await.expect("it is open");
            stream.shutdown().await.expect("it is open");
        };
        let mut read = Vec::new();
        let (_, got) = tokio::join!(talk, theirs.read_to_end(&mut read));
        got.expect("it is open");
        let wanted: &[u8] = b"\0\0\0\x24\0\x03\0\0replication\0true\0user\0amy\0\0\0more";
        assert_eq!(read, wanted);
    }
}
