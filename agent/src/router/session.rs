//! One client's connection, from its first byte to its last.
//!
//! ```text
//!   (PROXY header) ─► greeting ─► arrive ─► wait ◄──────────────┐
//!                        ▲                   │ Connect          │ not taken, or the target moved:
//!                        │                   ▼                  │ the client knows of nothing
//!                        └── `N` ◄── dial, greet, first answer ─┘
//!                                            │ answered
//!                                            ▼
//!                                  pass bytes until an end, or Reset
//! ```
//!
//! Nothing that a server says reaches the client before it is certain that the server takes the session, as far as that can be read: once
//! TLS or GSSAPI has been agreed on, what follows is opaque, and a server that goes down in that moment shows itself to the client.

use std::io;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use ipnet::IpNet;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::sync::mpsc;

use super::hub::{Hub, Session};
use super::proxy::{self, Ends};
use super::relay::{Counted, Served, idle};
use super::table::{Backend, Door, Order, Refusal};
use super::wire::{self, Answer, Greeting, Kind, NoGreeting, Opening, Told};
use crate::net::{Dial, Stream};

/// How long a request to cancel may take: nobody waits for its end but the client that sent it.
const CANCEL_LIMIT: Duration = Duration::from_secs(2);
/// What a client may send while it waits, which clients of PostgreSQL do not do.
const LONGEST_EARLY: usize = 16 << 10;

/// What all sessions share.
pub(super) struct Desk {
    pub(super) hub: Arc<Hub>,
    pub(super) dial: Arc<dyn Dial>,
    /// For a server to take the connection and to answer first.
    pub(super) connect_timeout: Duration,
    /// For a client to say what it wants.
    pub(super) greeting_timeout: Duration,
    /// Silence of both sides after which a session is ended.
    pub(super) idle_timeout: Option<Duration>,
    /// Tell the servers who the client is.
    pub(super) send_proxy: bool,
    /// Whose word on who the client is is taken.
    pub(super) accept_proxy: Vec<IpNet>,
}

/// How an attempt at a server ended.
enum Tried {
    /// It answered: what it said, and how it goes on.
    Answered(Stream, Vec<u8>),
    /// It did not take the session.
    NotTaken,
    /// The table has another order.
    Ordered(Order),
}

impl Desk {
    /// Serves a client. `ends` are those of its connection.
    pub(super) async fn serve(&self, door: Door, mut client: Stream, mut ends: Ends) {
        let peer = ends.client;
        let trusted = |net: &IpNet| net.contains(&peer.ip().to_canonical());
        if self.accept_proxy.iter().any(trusted) {
            match tokio::time::timeout(self.greeting_timeout, proxy::accept(&mut client)).await {
                Ok(Ok(told)) => ends = told.unwrap_or(ends),
                Ok(Err(error)) if error.kind() == io::ErrorKind::UnexpectedEof => return,
                Ok(Err(error)) => {
                    tracing::warn!(%peer, %error, "refused a connection from an address in router.accept_proxy");
                    return;
                }
                Err(_) => return,
            }
        }
        let greeting = match wire::greeting(&mut client, self.greeting_timeout).await {
            Ok(greeting) => greeting,
            Err(NoGreeting::Gone) => return,
            Err(why @ (NoGreeting::Late | NoGreeting::Foreign)) => {
                tracing::debug!(%peer, ?why, "a client did not say what it wants");
                return;
            }
        };
        if greeting.kind == Kind::Cancel {
            return self.cancel(door, &greeting, ends).await;
        }
        let session = self.hub.arrive(door, greeting.kind == Kind::Startup);
        let mut visit = Visit {
            desk: self,
            session,
            client,
            ends,
            early: Vec::new(),
        };
        if let Some((server, backend, said)) = visit.find_server(greeting).await {
            visit.pass(door, server, &backend, said).await;
        }
    }

    async fn dial(&self, backend: &Backend, ends: Ends) -> io::Result<Stream> {
        let mut server = self.dial.dial(&backend.at.host, backend.at.port).await?;
        if self.send_proxy {
            server.write_all(&proxy::header(ends)).await?;
        }
        Ok(server)
    }

    /// Passes a request to cancel on, and keeps the client until the server has read it, as the server itself would.
    async fn cancel(&self, door: Door, greeting: &Greeting, ends: Ends) {
        for backend in self.hub.runs_on(greeting.cancel_key(), door) {
            let passed = async {
                let mut server = self.dial(&backend, ends).await?;
                server.write_all(&greeting.bytes).await?;
                server.shutdown().await?;
                let mut end = [0; 1];
                server.read(&mut end).await
            };
            match tokio::time::timeout(CANCEL_LIMIT, passed).await {
                Ok(Ok(_)) => {}
                Ok(Err(error)) => {
                    tracing::debug!(member = backend.name, %error, "a request to cancel got lost");
                }
                Err(_) => tracing::debug!(member = backend.name, "a request to cancel got no end"),
            }
        }
    }
}

/// A client that is being served.
struct Visit<'a> {
    desk: &'a Desk,
    session: Session,
    client: Stream,
    ends: Ends,
    /// What the client sent while it waited.
    early: Vec<u8>,
}

impl Visit<'_> {
    /// Finds a server that takes the session; `None` if the client has gone or was sent away. What the server said is not passed on yet.
    async fn find_server(&mut self, mut greeting: Greeting) -> Option<(Stream, Backend, Vec<u8>)> {
        let mut order = self.wait().await?;
        // The server that has declined encryption and waits for what comes then.
        let mut link: Option<Stream> = None;
        loop {
            let backend = match order {
                Order::Connect(_, backend) => backend,
                Order::Wait(_) => {
                    link = None;
                    order = self.wait().await?;
                    continue;
                }
                Order::Refuse(_, why) => {
                    self.refuse(why, greeting.kind).await;
                    return None;
                }
                Order::Reset(_) => return None,
            };
            match self.attempt(&backend, link.take(), &greeting).await {
                Tried::Ordered(other) => order = other,
                Tried::NotTaken => {
                    self.session.failed(&backend);
                    order = self.wait().await?;
                }
                Tried::Answered(server, said) if greeting.kind == Kind::Encryption && said == b"N" => {
                    self.client.write_all(b"N").await.ok()?;
                    // Others may wait for how this ends, so it has no more time than the server.
                    greeting = wire::greeting(&mut self.client, self.desk.connect_timeout)
                        .await
                        .ok()?;
                    link = Some(server);
                    order = Order::Connect(self.session.id(), backend);
                }
                Tried::Answered(server, said) if self.session.opened(&backend) => {
                    return Some((server, backend, said));
                }
                Tried::Answered(..) => order = self.wait().await?,
            }
        }
    }

    /// Waits for an order, unless the client gives up.
    async fn wait(&mut self) -> Option<Order> {
        loop {
            let room = self.early.len() < LONGEST_EARLY;
            tokio::select! { biased;
                order = self.session.order() => return Some(order),
                read = self.client.read_buf(&mut self.early), if room => match read {
                    Ok(0) | Err(_) => return None,
                    Ok(_) => {}
                },
            }
        }
    }

    /// Tries a server, from the connection to its first answer.
    async fn attempt(&mut self, backend: &Backend, link: Option<Stream>, greeting: &Greeting) -> Tried {
        let (desk, ends) = (self.desk, self.ends);
        let talk = async {
            let mut server = match link {
                Some(server) => server,
                None => desk.dial(backend, ends).await?,
            };
            server.write_all(&greeting.bytes).await?;
            let said = match greeting.kind {
                Kind::Encryption => {
                    let mut answer = vec![0];
                    server.read_exact(&mut answer).await?;
                    answer
                }
                // The server speaks when the client's handshake is complete, which it is not yet.
                Kind::Tls => Vec::new(),
                Kind::Startup | Kind::Cancel => match wire::answer(&mut server).await {
                    Answer::Pass(said) => said,
                    Answer::ComeAgain(text) => return Err(io::Error::other(text)),
                },
            };
            io::Result::Ok((server, said))
        };
        tokio::select! { biased;
            order = self.session.order() => Tried::Ordered(order),
            talked = tokio::time::timeout(desk.connect_timeout, talk) => match talked {
                Ok(Ok((server, said))) => Tried::Answered(server, said),
                Ok(Err(error)) => {
                    tracing::debug!(member = backend.name, at = %backend.at, %error, "a session was not taken");
                    Tried::NotTaken
                }
                Err(_) => {
                    tracing::debug!(member = backend.name, at = %backend.at, "a session was not taken in time");
                    Tried::NotTaken
                }
            },
        }
    }

    /// Sends the client away, with a reason where it can read one.
    async fn refuse(&mut self, why: Refusal, kind: Kind) {
        if kind != Kind::Startup {
            return;
        }
        let (code, text) = match why {
            Refusal::TooMany => ("53300", "router: too many connections (router.max_connections)"),
            Refusal::TooManyWaiting => (
                "53300",
                "router: no server is available, and too many clients wait already (router.max_waiting)",
            ),
            Refusal::Expired => (
                "57P03",
                "router: no server became available in time (router.hold)",
            ),
        };
        // A client that does not read it is gone.
        let _ = self.client.write_all(&wire::fatal(code, text)).await;
        let _ = self.client.shutdown().await;
    }

    /// Passes bytes until either side ends, the session is to be reset, or nothing has passed for long.
    async fn pass(self, door: Door, server: Stream, backend: &Backend, said: Vec<u8>) {
        let Self {
            desk,
            mut session,
            client,
            early,
            ends,
        } = self;
        let traffic = desk.hub.traffic(door);
        let busy = AtomicBool::new(true);
        let (told, mut facts) = mpsc::unbounded_channel();
        let mut client = Counted {
            stream: client,
            sent: &traffic.sent,
            received: &traffic.received,
            busy: &busy,
        };
        let mut server = Served {
            stream: server,
            opening: Opening::default(),
            told,
            must_write: door == Door::Primary,
        };
        if server.look(&said).is_err() {
            tracing::warn!(member = backend.name, "the primary of the keys is a standby");
            return;
        }
        let pass = async {
            server.write_all(&early).await?;
            client.write_all(&said).await?;
            tokio::io::copy_bidirectional(&mut client, &mut server).await
        };
        tokio::pin!(pass);
        let ending = loop {
            tokio::select! { biased;
                order = session.order() => match order {
                    Order::Reset(_) => break "its server was deposed",
                    Order::Connect(..) | Order::Wait(_) | Order::Refuse(..) => {}
                },
                Some(fact) = facts.recv() => match fact {
                    Told::Key(key) => session.has_key(key, backend),
                    Told::Standby => {}
                },
                passed = &mut pass => match passed {
                    Ok(_) => break "both sides have ended",
                    Err(error) => {
                        tracing::debug!(client = %ends.client, member = backend.name, %error, "a session broke");
                        return;
                    }
                },
                () = idle(&busy, desk.idle_timeout) => break "nothing passed for idle_timeout",
            }
        };
        tracing::debug!(client = %ends.client, member = backend.name, "a session is over: {ending}");
    }
}
