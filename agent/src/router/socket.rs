//! TCP connections that notice when the other end is gone without a word.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use rustix::net::sockopt;
use tokio::net::{TcpListener, TcpStream};

use crate::net::{Dial, Listener, Network, Stream, Tcp};
use crate::task::BoxFuture;

/// So many keepalive probes are not answered before the connection is given up.
const PROBES: u32 = 3;

/// The machine's sockets with a bound on how long a silent peer is believed in, for connections of both directions.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Watchful {
    /// Silence after which the peer is probed, and the pause between probes; three without an answer end the connection.
    pub keepalive: Duration,
    /// How long bytes that were sent may go without an acknowledgement. Zero is the system's own bound, a quarter of an hour or so.
    pub user_timeout: Duration,
}

impl Watchful {
    fn tune(self, stream: &TcpStream) -> io::Result<()> {
        stream.set_nodelay(true)?;
        if !self.keepalive.is_zero() {
            // The kernel counts whole seconds.
            let pause = self.keepalive.max(Duration::from_secs(1));
            sockopt::set_socket_keepalive(stream, true)?;
            sockopt::set_tcp_keepidle(stream, pause)?;
            sockopt::set_tcp_keepintvl(stream, pause)?;
            sockopt::set_tcp_keepcnt(stream, PROBES)?;
        }
        if !self.user_timeout.is_zero() {
            let bound = u32::try_from(self.user_timeout.as_millis()).unwrap_or(u32::MAX);
            sockopt::set_tcp_user_timeout(stream, bound)?;
        }
        Ok(())
    }
}

impl Dial for Watchful {
    fn dial<'a>(&'a self, host: &'a str, port: u16) -> BoxFuture<'a, io::Result<Stream>> {
        Box::pin(async move {
            let stream = TcpStream::connect((host, port)).await?;
            self.tune(&stream)?;
            Ok(Box::new(stream) as Stream)
        })
    }
}

impl Network for Watchful {
    fn listen<'a>(
        &'a self,
        host: &'a str,
        port: u16,
        backlog: u32,
    ) -> BoxFuture<'a, io::Result<Box<dyn Listener>>> {
        Box::pin(async move {
            let listener = Tcp::bind(host, port, backlog).await?;
            Ok(Box::new(Watched(listener, *self)) as Box<dyn Listener>)
        })
    }

    fn resolve(&self, host: String) -> BoxFuture<'_, Vec<IpAddr>> {
        Box::pin(async move { Tcp.resolve(host).await })
    }
}

struct Watched(TcpListener, Watchful);

impl Listener for Watched {
    fn accept(&mut self) -> BoxFuture<'_, io::Result<(Stream, SocketAddr)>> {
        Box::pin(async move {
            let (stream, peer) = self.0.accept().await?;
            // A client that is gone again is no reason not to take the next; its stream says so when it is read.
            let _ = self.1.tune(&stream);
            Ok((Box::new(stream) as Stream, peer))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn both_directions_are_watched() {
        let watchful = Watchful {
            keepalive: Duration::from_secs(7),
            user_timeout: Duration::from_secs(9),
        };
        let listener = Tcp::bind("127.0.0.1", 0, 1).await.unwrap();
        let stream = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        watchful.tune(&stream).unwrap();
        assert!(sockopt::socket_keepalive(&stream).unwrap());
        assert_eq!(sockopt::tcp_keepidle(&stream).unwrap(), Duration::from_secs(7));
        assert_eq!(sockopt::tcp_keepintvl(&stream).unwrap(), Duration::from_secs(7));
        assert_eq!(sockopt::tcp_keepcnt(&stream).unwrap(), PROBES);
        assert_eq!(sockopt::tcp_user_timeout(&stream).unwrap(), 9000);
        assert!(stream.nodelay().unwrap());
    }
}
