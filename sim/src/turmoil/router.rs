//! A router such as HAProxy: it asks each member's REST API whether it is the primary, and takes clients to one that said so.
//!
//! A member is up after some good answers in a row (`rise`), down after some bad ones or none (`fall`); its sessions are cut when it goes
//! down, if the router is so minded. What a member answers is told to the record where it is answered, by [`Ear`], for the check against
//! the models.

use std::io;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use surus_scenarios::Health;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadBuf};
use tokio::task::AbortHandle;

use super::agent::REST;
use super::hub::Hub;
use super::net::{Machine, Stream};
use super::postgres::PORT as POSTGRES;
use super::process::Process;
use crate::record::Seen;

/// The port that clients come to.
pub const PORT: u16 = 5000;
/// How a router names itself, with its number.
const AGENT: &str = "User-Agent: router ";
/// A connection to a member takes no longer.
const CONNECT: Duration = Duration::from_secs(1);

/// A member, as a router sees it.
#[derive(Debug, Default)]
struct Backend {
    up: bool,
    /// Answers in a row that speak against what it is taken for.
    against: u64,
    sessions: Vec<AbortHandle>,
}

struct Inner {
    hub: Arc<Hub>,
    number: usize,
    health: Health,
    process: Process,
    members: Mutex<(Vec<Backend>, usize)>,
}

/// Starts the router of this number; the process that it is.
pub fn start(hub: &Arc<Hub>, number: usize, machine: Machine, health: Health) -> Process {
    let process = Process::new(Arc::clone(&hub.net), machine, format!("router {number}"));
    let members = hub.hosts.iter().map(|_| Backend::default()).collect();
    let inner = Arc::new(Inner {
        hub: Arc::clone(hub),
        number,
        health,
        process: process.clone(),
        members: Mutex::new((members, 0)),
    });
    for member in 0..hub.hosts.len() {
        let inner = Arc::clone(&inner);
        process.spawn(Box::pin(async move { inner.watch(member).await }));
    }
    serve(&process, PORT, move |stream| inner.carry(stream));
    process
}

/// Opens a door in a router's process.
pub(super) fn serve(process: &Process, port: u16, mut carry: impl FnMut(Stream) + Send + 'static) {
    let inside = process.clone();
    process.spawn(Box::pin(async move {
        let listening = Arc::clone(inside.net()).listen(inside.machine(), port).await;
        let mut listener = match listening {
            Ok(listener) => listener,
            Err(error) => panic!("{inside:?} cannot listen on port {port}: {error}"),
        };
        while let Ok((stream, _)) = listener.accept().await {
            carry(stream);
        }
    }));
}

/// Carries what a client and a server say to each other; gives the client back if the server cannot be reached. How a session ended shows at both ends.
pub(super) async fn carry(process: &Process, mut client: Stream, to: &str, port: u16) -> Option<Stream> {
    let dialling = Arc::clone(process.net()).dial(process.machine(), to, port);
    let Ok(Ok(mut server)) = tokio::time::timeout(CONNECT, dialling).await else {
        return Some(client);
    };
    let _ = tokio::io::copy_bidirectional(&mut client, &mut server).await;
    None
}

impl Inner {
    fn members(&self) -> MutexGuard<'_, (Vec<Backend>, usize)> {
        self.members.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Asks a member for ever.
    async fn watch(&self, member: usize) {
        let every = Duration::from_nanos(self.health.poll.0);
        tokio::time::sleep(Duration::from_nanos(self.hub.chance(0, self.health.poll.0))).await;
        let mut next = tokio::time::Instant::now();
        loop {
            next += every;
            let asked = tokio::time::timeout(every, self.ask(member)).await;
            self.heard(member, matches!(asked, Ok(Ok(true))));
            tokio::time::sleep_until(next).await;
        }
    }

    async fn ask(&self, member: usize) -> io::Result<bool> {
        let name = &self.hub.hosts[member].name;
        let dialling = Arc::clone(&self.hub.net).dial(self.process.machine(), name, REST);
        let mut stream = dialling.await?;
        let request = format!(
            "GET /primary HTTP/1.1\r\nHost: {name}\r\n{AGENT}{}\r\nConnection: close\r\n\r\n",
            self.number
        );
        stream.write_all(request.as_bytes()).await?;
        let mut status = [0; YES.len()];
        stream.read_exact(&mut status).await?;
        Ok(status == *YES)
    }

    /// An answer, or none.
    fn heard(&self, member: usize, primary: bool) {
        let mut members = self.members();
        let backend = &mut members.0[member];
        if backend.up == primary {
            backend.against = 0;
            return;
        }
        backend.against += 1;
        let needed = if backend.up {
            self.health.fall
        } else {
            self.health.rise
        };
        if backend.against < needed {
            return;
        }
        backend.against = 0;
        backend.up = primary;
        let sessions = std::mem::take(&mut backend.sessions);
        if primary || !self.health.cut {
            backend.sessions = sessions;
        } else {
            sessions.iter().for_each(AbortHandle::abort);
        }
        drop(members);
        let router = self.number;
        self.hub.see(Some(member), Seen::Routed { router, up: primary });
    }

    /// Takes a client to a member; one that finds none up is turned away.
    fn carry(self: &Arc<Self>, client: Stream) {
        let mut members = self.members();
        let (backends, turn) = &mut *members;
        let up: Vec<usize> = (0..backends.len())
            .filter(|member| backends[*member].up)
            .collect();
        if up.is_empty() {
            return;
        }
        *turn += 1;
        let member = up[*turn % up.len()];
        let (process, name) = (self.process.clone(), self.hub.hosts[member].name.clone());
        let session = self.process.spawn(Box::pin(async move {
            // Who cannot be taken there is turned away.
            let _ = carry(&process, client, &name, POSTGRES).await;
        }));
        let sessions = &mut backends[member].sessions;
        sessions.retain(|session| !session.is_finished());
        sessions.push(session);
    }
}

/// What an answer of 200 begins with.
const YES: &[u8; 12] = b"HTTP/1.1 200";

/// What a connection to a REST API has said so far.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Heard {
    Nothing,
    /// The question of this router.
    Question(usize),
    /// All that matters.
    Enough,
}

/// A connection to a member's REST API, with an ear for routers' questions and what is answered.
pub struct Ear {
    stream: Stream,
    hub: Arc<Hub>,
    host: usize,
    heard: Heard,
}

impl Ear {
    /// Listens at a connection that `host` has accepted.
    #[must_use]
    pub fn new(stream: Stream, hub: Arc<Hub>, host: usize) -> Self {
        Self {
            stream,
            hub,
            host,
            heard: Heard::Nothing,
        }
    }
}

/// The router that asks this for the primary.
fn asks(bytes: &[u8]) -> Option<usize> {
    let text = std::str::from_utf8(bytes).ok()?.strip_prefix("GET /primary ")?;
    let (_, after) = text.split_once(AGENT)?;
    after.lines().next()?.trim().parse().ok()
}

impl AsyncRead for Ear {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        let polled = Pin::new(&mut self.stream).poll_read(cx, buffer);
        let fresh = &buffer.filled()[before..];
        if self.heard == Heard::Nothing && !fresh.is_empty() {
            self.heard = asks(fresh).map_or(Heard::Enough, Heard::Question);
        }
        polled
    }
}

impl AsyncWrite for Ear {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        if let Heard::Question(router) = self.heard {
            self.heard = Heard::Enough;
            let primary = bytes.starts_with(YES);
            self.hub.see(Some(self.host), Seen::Health { router, primary });
        }
        Pin::new(&mut self.stream).poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_routers_question_is_known_by_its_number() {
        let question = format!("GET /primary HTTP/1.1\r\nHost: n1\r\n{AGENT}3\r\n\r\n");
        assert_eq!(asks(question.as_bytes()), Some(3));
        assert_eq!(asks(question.replace("primary", "replica").as_bytes()), None);
        assert_eq!(asks(b"GET /primary HTTP/1.1\r\nHost: n1\r\n\r\n"), None);
    }
}
