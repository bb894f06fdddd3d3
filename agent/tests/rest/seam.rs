//! Server and client over streams that are no sockets: what a simulator does.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use surus::config::settings::Ctl;
use surus::net::{Dial, Listener, Stream};
use surus::peers::member_client;
use surus::rest::{Limits, Rest};
use surus::task::BoxFuture;
use tokio::io::DuplexStream;
use tokio::sync::mpsc;

use crate::support::*;

struct Pipes(mpsc::UnboundedReceiver<DuplexStream>);

impl Listener for Pipes {
    fn accept(&mut self) -> BoxFuture<'_, io::Result<(Stream, SocketAddr)>> {
        Box::pin(async {
            match self.0.recv().await {
                Some(stream) => Ok((Box::new(stream) as Stream, ([10, 0, 0, 7], 1).into())),
                None => std::future::pending().await,
            }
        })
    }
}

struct Dialer(mpsc::UnboundedSender<DuplexStream>);

impl Dial for Dialer {
    fn dial<'a>(&'a self, host: &'a str, port: u16) -> BoxFuture<'a, io::Result<Stream>> {
        Box::pin(async move {
            assert_eq!((host, port), ("n1.example", 8008));
            let (near, far) = tokio::io::duplex(1024);
            self.0.send(far).map_err(|_| io::ErrorKind::ConnectionRefused)?;
            Ok(Box::new(near) as Stream)
        })
    }
}

#[tokio::test]
async fn members_talk_over_pipes() {
    let fake = Fake::new(cluster(Some("n1"), &[]));
    let (_statuses, receiver) = surus::published::channel(Arc::new(primary()));
    let rest = Rest::new(fake, receiver, settings(), Limits::default()).unwrap();
    let (dial, accept) = mpsc::unbounded_channel();
    let server = tokio::spawn(async move { rest.serve(Box::new(Pipes(accept))).await });
    let client = member_client(Arc::new(Dialer(dial)), &Ctl::default(), &settings()).unwrap();
    for _ in 0..100 {
        let status = client
            .ask_status("http://n1.example:8008/patroni", Duration::from_secs(2))
            .await;
        assert!(status.unwrap().primary);
    }
    server.abort();
}
