//! Clients: they write values that no other write has, read them back, and know of each operation that it was done, was not, or
//! that they cannot tell.
//!
//! How a client comes to a server is its [`Route`]: always to one member (one runs beside each server, so that a primary that is cut off
//! still has somebody who writes to it), through a router, or to the first of several hosts that accepts writes, as libpq does.
//! Whatever the route, a session once made is kept until it breaks: that is how writes come to a deposed primary.
//!
//! A client does one thing at a time. One that is refused by its only server waits until that server accepts writes again, at no cost:
//! what matters is that somebody writes at every instant at which a server lets him.

use crate::clock::{MS, SEC, Time};
use crate::fast::event::Event;
use crate::fast::world::World;
use crate::model::postgres::wal::RECORD;
use crate::model::postgres::{Refusal, SyncLevel};
use crate::net::Place;
use crate::record::{Fate, Seen};

/// The registers that are written; a value belongs to the one that it names modulo this.
const KEYS: u64 = 4;

/// The backend's fork, before it reads the startup packet. `psql -c` to the same host takes 2 to 5 ms, of which about 1 ms is this.
const FORK: Time = MS;

/// How long a connection may take to come about: that of the client which measures the real cluster.
const CONNECT: Time = 500 * MS;

/// The register that a value belongs to.
pub(crate) fn key_of(value: u64) -> u32 {
    u32::try_from(value % KEYS).unwrap_or(0)
}

/// How a client comes to a server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Route {
    /// To this member, whatever it is.
    Direct(usize),
    /// Through this router.
    Router(usize),
    /// To the first of these that accepts writes: libpq with several hosts and `target_session_attrs=read-write`.
    Hosts(Vec<usize>),
}

/// A client.
#[derive(Debug, Clone)]
pub struct Client {
    /// Where it runs.
    pub place: Place,
    /// How it comes to a server.
    pub route: Route,
    /// From the end of one operation to the next, about.
    pub pace: Time,
    /// How long it waits for an answer before it gives its session up.
    pub patience: Time,
    /// It reads, too.
    pub reads: bool,
    /// It keeps its session; otherwise it makes a new one for each operation.
    pub sticky: bool,
    /// The server it has a session with: the node, and which server there.
    session: Option<(usize, u64)>,
    op: Option<Op>,
    /// When it looks next whether it has waited long enough: one event for all its operations, for hardly any takes so long.
    alarm: Option<Time>,
    /// It waits until its server accepts writes.
    parked: bool,
}

impl Client {
    /// A client with the usual habits: an operation every 10 to 40 ms, a second of patience (both as the clients that measure the real
    /// cluster).
    #[must_use]
    pub fn new(place: Place, route: Route) -> Self {
        Self {
            place,
            route,
            pace: 25 * MS,
            patience: SEC,
            reads: true,
            sticky: true,
            session: None,
            op: None,
            alarm: None,
            parked: false,
        }
    }
}

/// An operation under way.
#[derive(Debug, Clone)]
struct Op {
    /// It is given up then.
    deadline: Time,
    /// Names the attempt under way, so that what belongs to an earlier one is known.
    id: u64,
    key: u32,
    /// The value to write; `None` reads.
    value: Option<u64>,
    /// The server that it was sent to, or to which a connection is being made.
    node: usize,
    /// There is a session, and the statement is on its way.
    sent: bool,
    /// Hosts to try next, if this one will not have it.
    rest: Vec<usize>,
}

/// What a server answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reply {
    /// A session is made, with the server of this number.
    Welcome(u64),
    /// Done: a write is committed, a read gives this.
    Done(Option<u64>),
    /// Nobody listens, or the server lets nobody in.
    Refused,
    /// It is no primary.
    ReadOnly,
    /// The connection broke.
    Reset,
}

impl World {
    /// A client that runs on a host which stands still does nothing before that goes on.
    fn client_waits(&mut self, index: usize, event: Event) -> bool {
        let Place::Node(node) = self.clients[index].place else {
            return false;
        };
        let still = self.hosts[node].still;
        let waits = self.now < still;
        if waits {
            self.after(still - self.now + 1, event);
        }
        waits
    }

    /// A client begins its next operation.
    pub(crate) fn client_act(&mut self, index: usize) {
        if self.client_waits(index, Event::ClientAct(index)) {
            return;
        }
        let client = &mut self.clients[index];
        if client.op.is_some() || client.parked {
            return;
        }
        self.counter += 1;
        let id = self.counter;
        let (key, value) = if client.reads && self.rng.one_in(4) {
            (key_of(self.rng.below(KEYS)), None)
        } else {
            (key_of(id), Some(id))
        };
        let seen = match value {
            Some(value) => Seen::WriteAsked {
                client: index,
                key,
                value,
            },
            None => Seen::ReadAsked { client: index, key },
        };
        self.see(None, seen);
        let client = &self.clients[index];
        let sent = client.session.is_some();
        let (first, rest) = match (&client.session, &client.route) {
            (Some((node, _)), _) | (None, Route::Direct(node)) => (Some(*node), Vec::new()),
            (None, Route::Router(router)) => (self.routed(*router), Vec::new()),
            (None, Route::Hosts(hosts)) => {
                let mut rest: Vec<_> = hosts.iter().rev().copied().collect();
                (rest.pop(), rest)
            }
        };
        let Some(node) = first else {
            self.clients[index].op = Some(Op {
                deadline: 0,
                id,
                key,
                value,
                node: 0,
                sent,
                rest,
            });
            self.client_ended(index, Fate::Failed, None);
            return;
        };
        self.clients[index].op = Some(Op {
            deadline: 0,
            id,
            key,
            value,
            node,
            sent,
            rest,
        });
        self.client_send(index);
    }

    /// The statement goes to the server of the session, or a request for a session to the server that is to be tried.
    fn client_send(&mut self, index: usize) {
        self.counter += 1;
        let id = self.counter;
        let client = &mut self.clients[index];
        let Some(op) = &mut client.op else { return };
        op.id = id;
        let (node, sent) = (op.node, op.sent);
        let patience = if sent { client.patience } else { CONNECT };
        let (from, to) = (client.place, Place::Node(node));
        if self.net.refuses(self.now, from, to) {
            let reply = if sent { Reply::Reset } else { Reply::Refused };
            self.after(MS, Event::ClientReply(index, id, reply));
            return;
        }
        if self.net.up(self.now, from, to) {
            let mut delay = self.net.delay(self.now, from, to, &mut self.rng);
            if !sent {
                // TCP's handshake goes before it.
                delay = 3 * delay + FORK;
            }
            self.after(delay, Event::ClientRequest(index, id));
        }
        let now = self.now;
        let client = &mut self.clients[index];
        if let Some(op) = &mut client.op {
            op.deadline = now + patience;
        }
        if client.alarm.is_none_or(|alarm| now + patience < alarm) {
            client.alarm = Some(now + patience);
            self.after(patience, Event::ClientTimeout(index));
        }
    }

    /// A statement, or a request for a session, reaches its server.
    pub(crate) fn client_request(&mut self, index: usize, id: u64) {
        let client = &self.clients[index];
        let Some(op) = client.op.as_ref().filter(|op| op.id == id) else {
            return;
        };
        let (node, key, value, session) = (op.node, op.key, op.value, client.session.filter(|_| op.sent));
        let any = matches!(client.route, Route::Direct(_));
        let by_hand = self.record.checker.scene().by_hand(node);
        let host = &mut self.hosts[node];
        if self.now < host.still {
            let wait = host.still - self.now + 1;
            self.after(wait, Event::ClientRequest(index, id));
            return;
        }
        if !host.powered {
            return;
        }
        // A cluster in the making lets in its maker alone.
        let shut = host.gate.is_some() || host.making || by_hand;
        let pg = &mut host.pg;
        let server = pg.epoch();
        let other = session.is_some_and(|(_, known)| known != server);
        if !other && pg.hung() {
            host.waiting.push((index, id));
            return;
        }
        let broken = other || session.is_some() && (pg.serves().is_err() || shut);
        let reply = if broken {
            Reply::Reset
        } else if session.is_none() {
            // A connection that a router brought is taken wherever it comes; libpq looks for itself.
            if !pg.answers() || pg.ills.crowded || shut {
                Reply::Refused
            } else if any || !pg.standby() {
                Reply::Welcome(server)
            } else {
                Reply::ReadOnly
            }
        } else if let Some(value) = value {
            match pg.commit(self.now, value, RECORD, SyncLevel::On) {
                Ok(_) => {
                    // The answer comes with the acknowledgement.
                    host.commits.insert(value, (index, id));
                    self.follow_pg(node);
                    return;
                }
                Err(Refusal::InRecovery) => Reply::ReadOnly,
                Err(Refusal::Disk) => Reply::Reset,
                Err(_) => Reply::Refused,
            }
        } else if !pg.answers() {
            // It died with the request in its socket.
            Reply::Reset
        } else if pg.standby() {
            Reply::ReadOnly
        } else {
            Reply::Done(pg.last_visible(|value| key_of(value) == key))
        };
        self.follow_pg(node);
        self.client_reply(index, id, node, reply);
    }

    /// A server's answer sets out.
    pub(crate) fn client_reply(&mut self, index: usize, id: u64, node: usize, reply: Reply) {
        let (from, to) = (Place::Node(node), self.clients[index].place);
        if self.net.up(self.now, from, to) {
            let delay = self.net.delay(self.now, from, to, &mut self.rng);
            self.after(delay, Event::ClientReply(index, id, reply));
        }
    }

    /// An answer reaches its client; `id` is zero if it belongs to no operation.
    pub(crate) fn client_heard(&mut self, index: usize, id: u64, reply: Reply) {
        if self.client_waits(index, Event::ClientReply(index, id, reply)) {
            return;
        }
        let client = &mut self.clients[index];
        let Some(op) = client.op.as_mut().filter(|op| op.id == id) else {
            if reply == Reply::Reset && client.op.is_none() {
                client.session = None;
            }
            return;
        };
        match reply {
            Reply::Welcome(server) => {
                client.session = Some((op.node, server));
                op.sent = true;
                self.client_send(index);
            }
            Reply::Done(read) => {
                client.session = client.session.filter(|_| client.sticky);
                self.client_ended(index, Fate::Ok, read);
            }
            Reply::Refused | Reply::ReadOnly => {
                client.session = None;
                client.parked = matches!(client.route, Route::Direct(_));
                if !op.sent {
                    self.client_tries_next(index);
                } else {
                    self.client_ended(index, Fate::Failed, None);
                }
                self.client_unpark_if_writable(index);
            }
            Reply::Reset if !op.sent => self.client_tries_next(index),
            Reply::Reset => {
                client.session = None;
                let fate = if op.value.is_some() {
                    Fate::Unknown
                } else {
                    Fate::Failed
                };
                self.client_ended(index, fate, None);
            }
        }
    }

    /// A server will have no session: the next is tried, if there is one. Nothing was sent.
    fn client_tries_next(&mut self, index: usize) {
        let Some(op) = &mut self.clients[index].op else {
            return;
        };
        match op.rest.pop() {
            Some(next) => {
                op.node = next;
                self.client_send(index);
            }
            None => self.client_ended(index, Fate::Failed, None),
        }
    }

    /// A client has waited long enough.
    pub(crate) fn client_timeout(&mut self, index: usize) {
        if self.client_waits(index, Event::ClientTimeout(index)) {
            return;
        }
        let now = self.now;
        let client = &mut self.clients[index];
        if client.alarm.is_none_or(|alarm| now < alarm) {
            // An earlier one took its place.
            return;
        }
        client.alarm = None;
        let Some(op) = &client.op else { return };
        if now < op.deadline {
            let wait = op.deadline - now;
            client.alarm = Some(op.deadline);
            return self.after(wait, Event::ClientTimeout(index));
        }
        client.session = None;
        if !op.sent {
            self.client_tries_next(index);
            return;
        }
        let fate = if op.value.is_some() {
            Fate::Unknown
        } else {
            Fate::Failed
        };
        self.client_ended(index, fate, None);
    }

    /// The operation is over for its client, who comes back after a while.
    fn client_ended(&mut self, index: usize, fate: Fate, read: Option<u64>) {
        let client = &mut self.clients[index];
        let Some(op) = client.op.take() else { return };
        let seen = match op.value {
            Some(value) => Seen::WriteEnded {
                client: index,
                key: op.key,
                value,
                fate,
            },
            None => Seen::ReadEnded {
                client: index,
                key: op.key,
                value: read,
                fate,
            },
        };
        let pace = client.pace;
        if let (Some(value), Fate::Ok) = (op.value, fate)
            && index < self.shape.clients.len()
        {
            self.acked.push(value);
        }
        self.see(None, seen);
        if pace == u64::MAX {
            return;
        }
        let delay = self.rng.range(pace / 5 * 2, pace / 5 * 8);
        self.after(delay, Event::ClientAct(index));
    }

    /// A server is gone or cuts its sessions: clients hear of it at once, unless the host went with it.
    pub(crate) fn cut_sessions(&mut self, node: usize) {
        let waiting = std::mem::take(&mut self.hosts[node].waiting);
        if !self.hosts[node].powered || self.now < self.hosts[node].still {
            return;
        }
        for (index, id) in waiting {
            self.client_reply(index, id, node, Reply::Reset);
        }
        for index in 0..self.clients.len() {
            let client = &self.clients[index];
            if client.session.is_some_and(|(at, _)| at == node) {
                let id = client.op.as_ref().map_or(0, |op| op.id);
                self.client_reply(index, id, node, Reply::Reset);
            }
        }
    }

    /// A server that hung goes on, and takes up what came meanwhile.
    pub(crate) fn serve_waiting(&mut self, node: usize) {
        for (index, id) in std::mem::take(&mut self.hosts[node].waiting) {
            self.client_request(index, id);
        }
    }

    /// A server accepts writes: whoever waited for that comes.
    pub(crate) fn unpark(&mut self, node: usize) {
        for index in 0..self.clients.len() {
            if self.clients[index].parked && self.clients[index].route == Route::Direct(node) {
                self.client_unpark_if_writable(index);
            }
        }
    }

    fn client_unpark_if_writable(&mut self, index: usize) {
        let client = &mut self.clients[index];
        if let Route::Direct(node) = client.route
            && client.parked
            && self.hosts[node].pg.writable()
        {
            client.parked = false;
            let delay = self.rng.range(MS / 2, client.pace);
            self.after(delay, Event::ClientAct(index));
        }
    }

    /// A router gives a member up: it cuts the sessions that go through it.
    pub(crate) fn shut_sessions(&mut self, router: usize, node: usize) {
        for index in 0..self.clients.len() {
            let client = &self.clients[index];
            if client.route == Route::Router(router) && client.session.is_some_and(|(at, _)| at == node) {
                let id = client.op.as_ref().map_or(0, |op| op.id);
                self.after(MS, Event::ClientReply(index, id, Reply::Reset));
            }
        }
    }
}
