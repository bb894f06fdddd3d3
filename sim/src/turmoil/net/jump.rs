//! The work-horse: TCP by `turmoil-net`, and a pump that carries its packets and lets time jump from one event to the next.
//!
//! A run is one paused tokio runtime: when nothing is left to do at an instant, tokio moves its clock to the next timer, be it the
//! agent's or the pump's. What TCP makes of trouble is decided here and not in the stack, whose retransmission counts passes and not
//! time: a lost packet arrives a retransmission timeout later and holds up those of its connection behind it; what is cut off arrives
//! some time after the cut is healed, as late as the sender's back-off makes it. A bare acknowledgement waits, as Linux delays them, for one
//! that says more or for data that carries it: half of all packets are acknowledgements, and nobody acts on them.
//!
//! Two rules of `turmoil-net`: its sockets belong to a *current* host, set before each use of one, in `Drop` too; and an address is
//! never bound twice, for an attempt at a connection that was given up half-way occupies it for ever. So each listener gets a
//! port of its own, and who dials the port it stands for is led there.

use std::collections::BTreeMap;
use std::future::Future;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::runtime::{Handle, Runtime};
use tokio::sync::Notify;
use tokio::task::AbortHandle;
use tokio::time::Instant;
use turmoil_net::shim::tokio::net::{TcpListener, TcpStream};
use turmoil_net::{EnterGuard, HostId, KernelConfig, Packet, Transport};

use super::super::halt;
use super::super::interpose::{self, Interposed};
use super::{BoxFuture, Driver, Listener, Machine, Net, Stream};
use crate::clock::{MS, SEC, Time};
use crate::rng::Rng;

/// Linux's shortest retransmission timeout, doubled with each attempt.
const RTO: Time = 200 * MS;
/// The longest wait after a cut is healed: the sender's back-off has grown to this in the longest cuts there are.
const MOST_BACKOFF: Time = 6 * SEC;
/// Linux's longest delay of an acknowledgement.
const DELAYED_ACK: Time = 40 * MS;
/// Ports from here on stand for those that were asked for.
const FIRST_PORT: u16 = 10_000;

#[derive(Debug, Clone, Copy, Default)]
struct Link {
    /// Cut since then.
    cut: Option<Time>,
    slow: Time,
    lossy: u64,
}

/// A direction of a connection: from and to which address and port.
type Flow = (IpAddr, u16, IpAddr, u16);

/// What is known of a direction of a connection.
#[derive(Debug, Clone, Copy, Default)]
struct Course {
    /// When the last packet arrives: TCP keeps their order.
    last: Time,
    /// It has asked for the connection, and the next packet completes it: that one is waited for.
    opening: bool,
    /// Where a bare acknowledgement waits.
    acknowledgement: Option<(Time, u64)>,
}

struct State {
    hosts: Vec<(HostId, IpAddr)>,
    names: BTreeMap<String, Machine>,
    links: BTreeMap<(Machine, Machine), Link>,
    dark: Vec<bool>,
    /// Which port stands for the one that was asked for.
    listening: BTreeMap<(Machine, u16), u16>,
    next_port: u16,
    queue: BTreeMap<(Time, u64), Packet>,
    sequence: u64,
    flows: BTreeMap<Flow, Course>,
    held: BTreeMap<(Machine, Machine), Vec<Packet>>,
    rng: Rng,
    hash: u64,
    packets: u64,
}

/// The network.
pub struct Jump {
    state: Mutex<State>,
    kick: Notify,
    /// A machine may have something to send.
    stirred: AtomicBool,
    over: AtomicBool,
    /// Time passes at this moment: one is inside the runtime.
    running: AtomicBool,
    handle: Handle,
    begin: Instant,
}

/// The network with what it runs on. One per thread.
pub struct Jumping {
    jump: Arc<Jump>,
    runtime: Option<Runtime>,
    guard: EnterGuard,
    _interposed: Interposed,
}

impl Jumping {
    /// A network of these machines, at time zero.
    ///
    /// # Errors
    /// The process is out of file descriptors.
    pub fn new(seed: u64, names: &[String]) -> io::Result<Self> {
        let interposed = Interposed::begin(seed);
        // What retransmits is the pump.
        let config = KernelConfig::default()
            .retx_threshold(u32::MAX)
            .retx_max(u32::MAX);
        let mut net = turmoil_net::Net::with_config(config);
        let hosts: Vec<(HostId, IpAddr)> = names
            .iter()
            .map(|name| {
                let id = net.add_host(name.as_str());
                (id, net.lookup(name))
            })
            .collect();
        let guard = net.enter();
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_time()
            .start_paused(true)
            .build()?;
        let begin = {
            let _inside = runtime.enter();
            Instant::now()
        };
        let machines = names.iter().enumerate();
        let jump = Arc::new(Jump {
            state: Mutex::new(State {
                dark: vec![false; hosts.len()],
                names: machines
                    .map(|(index, name)| (name.clone(), Machine(index)))
                    .collect(),
                hosts,
                links: BTreeMap::new(),
                listening: BTreeMap::new(),
                next_port: FIRST_PORT,
                queue: BTreeMap::new(),
                sequence: 0,
                flows: BTreeMap::new(),
                held: BTreeMap::new(),
                rng: Rng::new(seed, 21),
                hash: 0xcbf2_9ce4_8422_2325,
                packets: 0,
            }),
            kick: Notify::new(),
            stirred: AtomicBool::new(true),
            over: AtomicBool::new(false),
            running: AtomicBool::new(false),
            handle: runtime.handle().clone(),
            begin,
        });
        Ok(Self {
            jump,
            runtime: Some(runtime),
            guard,
            _interposed: interposed,
        })
    }
}

impl Driver for Jumping {
    fn net(&self) -> Arc<dyn Net> {
        Arc::clone(&self.jump) as Arc<dyn Net>
    }

    fn run_until(&mut self, time: Time) {
        let Some(runtime) = &self.runtime else { return };
        let until = self.jump.begin + Duration::from_nanos(time);
        self.jump.running.store(true, Ordering::Relaxed);
        runtime.block_on(async {
            tokio::select! { biased;
                () = halt::asked() => {}
                () = tokio::time::sleep_until(until) => {}
                never = self.jump.pump(&self.guard) => match never {},
            }
        });
        self.jump.running.store(false, Ordering::Relaxed);
    }
}

impl Drop for Jumping {
    /// The tasks that are left drop their sockets, and nobody is told.
    fn drop(&mut self) {
        self.jump.over.store(true, Ordering::Relaxed);
        self.runtime = None;
    }
}

impl Jump {
    /// Carries packets for ever.
    async fn pump(&self, guard: &EnterGuard) -> std::convert::Infallible {
        let mut out = Vec::new();
        let mut due = Vec::new();
        loop {
            let now = self.now();
            interpose::set_now(now);
            // Each pass looks at every socket there is: none is made unless something can have come of it.
            if self.stirred.swap(false, Ordering::Relaxed) {
                guard.egress_all(&mut out);
            }
            let next = {
                let mut state = self.state();
                for packet in out.drain(..) {
                    state.route(now, packet);
                }
                state.take_due(now, &mut due);
                state.queue.first_key_value().map(|((at, _), _)| *at)
            };
            if !due.is_empty() {
                for packet in due.drain(..) {
                    guard.deliver(packet);
                }
                self.stirred.store(true, Ordering::Relaxed);
                // Whoever was waiting for it answers first, and one pass takes it all.
                tokio::task::yield_now().await;
                continue;
            }
            // A wake-up can be left over from before the last pass.
            while !self.stirred.load(Ordering::Relaxed) {
                let Some(at) = next else {
                    self.kick.notified().await;
                    continue;
                };
                let until = self.begin + Duration::from_nanos(at);
                tokio::select! { biased;
                    () = self.kick.notified() => {}
                    () = tokio::time::sleep_until(until) => break,
                }
            }
        }
    }

    /// A machine may have something to send.
    fn stir(&self) {
        if !self.stirred.swap(true, Ordering::Relaxed) {
            self.kick.notify_one();
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn host(&self, machine: Machine) -> HostId {
        self.state().hosts[machine.0].0
    }

    fn socket(self: &Arc<Self>, machine: Machine, stream: TcpStream) -> Stream {
        Box::new(Socket {
            stream: Some(stream),
            host: self.host(machine),
            jump: Arc::clone(self),
        })
    }
}

impl State {
    fn machine(&self, address: IpAddr) -> Option<Machine> {
        self.hosts.iter().position(|(_, at)| *at == address).map(Machine)
    }

    fn note(&mut self, now: Time, packet: &Packet) {
        self.packets += 1;
        let Transport::Tcp(segment) = &packet.payload else {
            return;
        };
        let flags = u64::from(segment.flags.syn)
            | u64::from(segment.flags.ack) << 1
            | u64::from(segment.flags.fin) << 2
            | u64::from(segment.flags.rst) << 3;
        let ports = u64::from(segment.src_port) << 16 | u64::from(segment.dst_port);
        let numbers = u64::from(segment.seq) << 32 | u64::from(segment.ack);
        for word in [now, ports, numbers, flags] {
            self.hash = (self.hash ^ word).wrapping_mul(0x0000_0100_0000_01b3);
        }
        for byte in segment.payload.iter() {
            self.hash = (self.hash ^ u64::from(*byte)).wrapping_mul(0x0000_0100_0000_01b3);
        }
    }

    /// A packet leaves a machine.
    fn route(&mut self, now: Time, packet: Packet) {
        self.note(now, &packet);
        let (Some(from), Some(to)) = (self.machine(packet.src), self.machine(packet.dst)) else {
            return;
        };
        if self.dark[from.0] {
            return;
        }
        let link = self.links.get(&(from, to)).copied().unwrap_or_default();
        if link.cut.is_some() || self.dark[to.0] {
            self.held.entry((from, to)).or_default().push(packet);
            return;
        }
        let mut delay = self.rng.range(MS / 5, 2 * MS) + self.rng.below(link.slow.max(1));
        if link.lossy != 0 {
            let mut wait = RTO;
            while wait < MOST_BACKOFF && self.rng.one_in(link.lossy) {
                delay += wait;
                wait *= 2;
            }
        }
        self.send(now + delay, packet);
    }

    fn send(&mut self, at: Time, packet: Packet) {
        let Transport::Tcp(segment) = &packet.payload else {
            return;
        };
        let flags = segment.flags;
        let bare = flags.ack && !flags.syn && !flags.fin && !flags.rst && segment.payload.is_empty();
        let flow = (packet.src, segment.src_port, packet.dst, segment.dst_port);
        let course = self.flows.entry(flow).or_default();
        // Whatever is sent later acknowledges more.
        if let Some(place) = course.acknowledgement.take() {
            self.queue.remove(&place);
        }
        self.sequence += 1;
        let place = if bare && !course.opening {
            let place = (course.last.max(at + DELAYED_ACK), self.sequence);
            course.acknowledgement = Some(place);
            place
        } else {
            course.last = at.max(course.last);
            (course.last, self.sequence)
        };
        course.opening = flags.syn && !flags.ack;
        self.queue.insert(place, packet);
    }

    fn take_due(&mut self, now: Time, due: &mut Vec<Packet>) {
        while let Some(entry) = self.queue.first_entry() {
            if now < entry.key().0 {
                break;
            }
            let packet = entry.remove();
            let to = self.machine(packet.dst);
            if to.is_some_and(|to| !self.dark[to.0]) {
                due.push(packet);
            } else if let (Some(from), Some(to)) = (self.machine(packet.src), to) {
                self.held.entry((from, to)).or_default().push(packet);
            }
        }
        if self.flows.len() > 512 {
            self.flows.retain(|_, course| {
                now < course.last || course.opening || course.acknowledgement.is_some_and(|(at, _)| now < at)
            });
        }
    }

    /// What waited goes on its way, as late as the back-off of its sender has grown in `waited`.
    fn release(&mut self, now: Time, from: Machine, to: Machine, waited: Time) {
        let mut backoff: BTreeMap<(u16, u16), Time> = BTreeMap::new();
        for packet in self.held.remove(&(from, to)).unwrap_or_default() {
            let Transport::Tcp(segment) = &packet.payload else {
                continue;
            };
            let ports = (segment.src_port, segment.dst_port);
            let most = waited.clamp(RTO, MOST_BACKOFF);
            let rng = &mut self.rng;
            let delay = *backoff.entry(ports).or_insert_with(|| rng.below(most));
            self.send(now + delay, packet);
        }
    }
}

impl Net for Jump {
    fn now(&self) -> Time {
        // tokio's clock is that of the runtime one is in, and the world is also looked at from outside.
        let outside = !self.running.load(Ordering::Relaxed);
        let _inside = outside.then(|| self.handle.enter());
        u64::try_from(self.begin.elapsed().as_nanos()).unwrap_or(u64::MAX)
    }

    fn enter(&self, machine: Machine) {
        if self.over.load(Ordering::Relaxed) {
            return;
        }
        interpose::set_now(self.now());
        turmoil_net::set_current(self.host(machine));
    }

    fn start(&self, _on: Machine, task: BoxFuture<'static, ()>) -> AbortHandle {
        self.handle.spawn(task).abort_handle()
    }

    fn dial(self: Arc<Self>, from: Machine, to: &str, port: u16) -> BoxFuture<'static, io::Result<Stream>> {
        let address = {
            let state = self.state();
            let machine = match to {
                "localhost" | "127.0.0.1" => Some(from),
                name => state.names.get(name).copied(),
            };
            machine.map(|machine| {
                // A port that nobody listens on is refused by the machine that is asked, as it should be.
                let port = state.listening.get(&(machine, port)).copied().unwrap_or(port);
                SocketAddr::new(state.hosts[machine.0].1, port)
            })
        };
        Box::pin(async move {
            let address = address.ok_or(io::ErrorKind::NotFound)?;
            let stream = Connecting {
                inner: Some(Box::pin(TcpStream::connect(address))),
                host: self.host(from),
                jump: Arc::clone(&self),
            }
            .await?;
            Ok(self.socket(from, stream))
        })
    }

    fn listen(self: Arc<Self>, on: Machine, port: u16) -> BoxFuture<'static, io::Result<Box<dyn Listener>>> {
        Box::pin(async move {
            let stands_for = {
                let mut state = self.state();
                if state.listening.contains_key(&(on, port)) {
                    return Err(io::ErrorKind::AddrInUse.into());
                }
                let next = state.next_port;
                state.next_port += 1;
                state.listening.insert((on, port), next);
                next
            };
            let inner = TcpListener::bind(SocketAddr::from(([0, 0, 0, 0], stands_for))).await?;
            Ok(Box::new(Door {
                inner: Some(inner),
                at: (on, port),
                jump: self,
            }) as Box<dyn Listener>)
        })
    }

    fn cut(&self, from: Machine, to: Machine, cut: bool) {
        let now = self.now();
        let mut state = self.state();
        let link = state.links.entry((from, to)).or_default();
        if cut {
            link.cut = link.cut.or(Some(now));
        } else if let Some(since) = link.cut.take()
            && !state.dark[to.0]
        {
            state.release(now, from, to, now - since);
        }
        drop(state);
        self.stir();
    }

    fn slow(&self, from: Machine, to: Machine, most: Time) {
        self.state().links.entry((from, to)).or_default().slow = most;
    }

    fn lossy(&self, from: Machine, to: Machine, one_in: u64) {
        self.state().links.entry((from, to)).or_default().lossy = one_in;
    }

    fn power(&self, machine: Machine, on: bool) {
        let now = self.now();
        let mut state = self.state();
        state.dark[machine.0] = !on;
        if on {
            let senders: Vec<Machine> = state
                .held
                .keys()
                .filter(|(_, to)| *to == machine)
                .map(|(from, _)| *from)
                .collect();
            for from in senders {
                let link = state.links.get(&(from, machine)).copied().unwrap_or_default();
                if link.cut.is_none() {
                    state.release(now, from, machine, MOST_BACKOFF);
                }
            }
        } else {
            // What had left the machine is on its way; what it held back is gone with it.
            state.held.retain(|(from, _), _| *from != machine);
        }
        drop(state);
        self.stir();
    }

    fn reaches(&self, from: Machine, to: Machine) -> bool {
        let state = self.state();
        let cut = state
            .links
            .get(&(from, to))
            .is_some_and(|link| link.cut.is_some());
        !state.dark[from.0] && !state.dark[to.0] && !cut
    }

    fn hash(&self) -> u64 {
        self.state().hash
    }

    fn packets(&self) -> u64 {
        self.state().packets
    }
}

/// An attempt at a connection.
struct Connecting<F> {
    inner: Option<Pin<Box<F>>>,
    host: HostId,
    jump: Arc<Jump>,
}

impl<F: Future> Future for Connecting<F> {
    type Output = F::Output;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<F::Output> {
        turmoil_net::set_current(self.host);
        let polled = match &mut self.inner {
            Some(inner) => inner.as_mut().poll(cx),
            None => Poll::Pending,
        };
        self.jump.stir();
        polled
    }
}

impl<F> Drop for Connecting<F> {
    fn drop(&mut self) {
        turmoil_net::set_current(self.host);
        self.inner = None;
        self.jump.stir();
    }
}

/// A listener.
struct Door {
    inner: Option<TcpListener>,
    at: (Machine, u16),
    jump: Arc<Jump>,
}

impl Listener for Door {
    fn accept(&mut self) -> BoxFuture<'_, io::Result<(Stream, SocketAddr)>> {
        Box::pin(async {
            let accepted = std::future::poll_fn(|cx| {
                turmoil_net::set_current(self.jump.host(self.at.0));
                match &self.inner {
                    Some(inner) => inner.poll_accept(cx),
                    None => Poll::Pending,
                }
            });
            let (stream, peer) = accepted.await?;
            Ok((self.jump.socket(self.at.0, stream), peer))
        })
    }
}

impl Drop for Door {
    fn drop(&mut self) {
        turmoil_net::set_current(self.jump.host(self.at.0));
        self.inner = None;
        self.jump.state().listening.remove(&self.at);
        self.jump.stir();
    }
}

/// A connection; every use of it that can make the machine send something wakes the pump.
struct Socket {
    stream: Option<TcpStream>,
    host: HostId,
    jump: Arc<Jump>,
}

impl Socket {
    fn stream(&mut self) -> io::Result<Pin<&mut TcpStream>> {
        turmoil_net::set_current(self.host);
        self.stream
            .as_mut()
            .map(Pin::new)
            .ok_or_else(|| io::ErrorKind::NotConnected.into())
    }
}

impl Drop for Socket {
    fn drop(&mut self) {
        turmoil_net::set_current(self.host);
        self.stream = None;
        self.jump.stir();
    }
}

impl AsyncRead for Socket {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        let polled = self.stream()?.poll_read(cx, buffer);
        // The window may have opened.
        if buffer.filled().len() != before {
            self.jump.stir();
        }
        polled
    }
}

impl AsyncWrite for Socket {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let polled = self.stream()?.poll_write(cx, bytes);
        self.jump.stir();
        polled
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.stream()?.poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let polled = self.stream()?.poll_shutdown(cx);
        self.jump.stir();
        polled
    }
}
