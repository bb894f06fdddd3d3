//! Outgoing connections, and the seam at which a simulator puts its own network in place of the machine's.
//!
//! Whoever opens a connection takes a [`Dial`]; the composition root passes [`TcpDial`], the simulator its own.

use std::future::Future;
use std::io;

use tokio::io::{AsyncRead, AsyncWrite};

/// Bytes both ways.
pub trait Io: AsyncRead + AsyncWrite + Send + Unpin {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin> Io for T {}

/// A connection of any kind.
pub type Stream = Box<dyn Io>;

/// Opens connections. It sets no time limit of its own: callers do.
pub trait Dial: Clone + Send + Sync + 'static {
    /// Connects to `port` of `host`, a name or an address (IPv6 without brackets).
    ///
    /// # Errors
    /// Whatever the network says: refused, unreachable, no such name.
    fn dial(&self, host: &str, port: u16) -> impl Future<Output = io::Result<Stream>> + Send;
}

/// The machine's own TCP, without Nagle's delay.
#[derive(Debug, Clone, Copy, Default)]
pub struct TcpDial;

impl Dial for TcpDial {
    async fn dial(&self, host: &str, port: u16) -> io::Result<Stream> {
        let stream = tokio::net::TcpStream::connect((host, port)).await?;
        stream.set_nodelay(true)?;
        Ok(Box::new(stream))
    }
}
