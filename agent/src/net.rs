//! Connections out of and into the agent, and the seam at which a simulator puts its own network in place of the machine's.
//!
//! Whoever opens a connection takes a [`Dial`]; who listens as well, a [`Network`]. The composition root passes [`Tcp`], the simulator its
//! own.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::path::Path;

use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpSocket, TcpStream, UnixStream};

use crate::task::BoxFuture;

/// Bytes both ways.
pub trait Io: AsyncRead + AsyncWrite + Send + Unpin {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin> Io for T {}

/// A connection of any kind.
pub type Stream = Box<dyn Io>;

/// Opens connections. It sets no time limit of its own: callers do.
pub trait Dial: Send + Sync + 'static {
    /// Connects to `port` of `host`, a name or an address (IPv6 without brackets). Fails with whatever the network says: refused,
    /// unreachable, no such name.
    fn dial<'a>(&'a self, host: &'a str, port: u16) -> BoxFuture<'a, io::Result<Stream>>;

    /// Connects to a Unix socket. Not every network has any.
    fn dial_unix<'a>(&'a self, path: &'a Path) -> BoxFuture<'a, io::Result<Stream>> {
        Box::pin(async move {
            let text = format!("no Unix sockets here: {}", path.display());
            Err(io::Error::new(io::ErrorKind::Unsupported, text))
        })
    }
}

/// Opens and takes connections.
pub trait Network: Dial {
    /// Listens at `port` of `host`; `*` or an empty host is every address. At most `backlog` connections wait to be accepted. Fails when
    /// the name cannot be resolved, or none of its addresses can be listened on (in use, not ours, not allowed).
    fn listen<'a>(
        &'a self,
        host: &'a str,
        port: u16,
        backlog: u32,
    ) -> BoxFuture<'a, io::Result<Box<dyn Listener>>>;

    /// The addresses of a host name; none if it cannot be resolved.
    fn resolve(&self, host: String) -> BoxFuture<'_, Vec<IpAddr>>;
}

/// Where connections come from.
pub trait Listener: Send + 'static {
    /// The next connection and the address of its client. Must be cancel safe.
    fn accept(&mut self) -> BoxFuture<'_, io::Result<(Stream, SocketAddr)>>;
}

/// The machine's own sockets, TCP without Nagle's delay.
#[derive(Debug, Clone, Copy, Default)]
pub struct Tcp;

impl Dial for Tcp {
    fn dial<'a>(&'a self, host: &'a str, port: u16) -> BoxFuture<'a, io::Result<Stream>> {
        Box::pin(async move {
            let stream = TcpStream::connect((host, port)).await?;
            stream.set_nodelay(true)?;
            Ok(Box::new(stream) as Stream)
        })
    }

    fn dial_unix<'a>(&'a self, path: &'a Path) -> BoxFuture<'a, io::Result<Stream>> {
        Box::pin(async move { Ok(Box::new(UnixStream::connect(path).await?) as Stream) })
    }
}

impl Network for Tcp {
    fn listen<'a>(
        &'a self,
        host: &'a str,
        port: u16,
        backlog: u32,
    ) -> BoxFuture<'a, io::Result<Box<dyn Listener>>> {
        Box::pin(async move { Ok(Box::new(Self::bind(host, port, backlog).await?) as Box<dyn Listener>) })
    }

    fn resolve(&self, host: String) -> BoxFuture<'_, Vec<IpAddr>> {
        Box::pin(async move {
            match tokio::net::lookup_host((host, 0)).await {
                Ok(addresses) => addresses.map(|address| address.ip()).collect(),
                Err(_) => Vec::new(),
            }
        })
    }
}

impl Tcp {
    /// Listens, see [`Network::listen`].
    ///
    /// # Errors
    /// As there.
    pub async fn bind(host: &str, port: u16, backlog: u32) -> io::Result<TcpListener> {
        let addresses: Vec<SocketAddr> = match host {
            "" | "*" => vec![
                (std::net::Ipv6Addr::UNSPECIFIED, port).into(),
                (std::net::Ipv4Addr::UNSPECIFIED, port).into(),
            ],
            host => tokio::net::lookup_host((host, port)).await?.collect(),
        };
        let mut failure = io::Error::new(io::ErrorKind::AddrNotAvailable, "the name has no address");
        for address in addresses {
            let socket = match address {
                SocketAddr::V4(_) => TcpSocket::new_v4(),
                SocketAddr::V6(_) => TcpSocket::new_v6(),
            };
            let listening = socket.and_then(|socket| {
                socket.set_reuseaddr(true)?;
                socket.bind(address)?;
                socket.listen(backlog)
            });
            match listening {
                Ok(listener) => return Ok(listener),
                Err(error) => failure = error,
            }
        }
        Err(failure)
    }
}

impl Listener for TcpListener {
    fn accept(&mut self) -> BoxFuture<'_, io::Result<(Stream, SocketAddr)>> {
        Box::pin(async move {
            let (stream, peer) = Self::accept(self).await?;
            // Answers are one small write; they must not wait for an acknowledgement. A socket that refuses is slower, no more.
            let _ = stream.set_nodelay(true);
            Ok((Box::new(stream) as Stream, peer))
        })
    }
}
