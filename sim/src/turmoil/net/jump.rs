//! The work-horse: TCP by `turmoil-net`, and a pump that carries its packets and lets time jump from one event to the next.
//!
//! A run is one paused tokio runtime: when nothing is left to do at an instant, tokio moves its clock to the next timer, be it the
//! agent's or the pump's. What TCP makes of trouble is decided in `links` and not in the stack, whose retransmission counts passes
//! and not time. A bare acknowledgement waits there, as Linux delays them: half of all packets are acknowledgements, and nobody acts on them.
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
use turmoil_net::{EnterGuard, HostId, KernelConfig, Packet, TcpFlags, Transport};

use super::super::halt;
use super::super::interpose::{self, Interposed};
use super::digest::Digest;
use super::links::{Links, Parcel, Sort};
use super::{BoxFuture, Driver, Listener, Machine, Net, Stream};
use crate::clock::Time;

/// Ports from here on stand for those that were asked for.
const FIRST_PORT: u16 = 10_000;

struct State {
    hosts: Vec<(HostId, IpAddr)>,
    names: BTreeMap<String, Machine>,
    /// Which port stands for the one that was asked for.
    listening: BTreeMap<(Machine, u16), u16>,
    next_port: u16,
    links: Links<Packet>,
    /// For each machine, what would make its kernel forget the connections that it has known.
    resets: BTreeMap<Machine, Vec<Packet>>,
    /// What makes kernels forget that have lost their power.
    forget: Vec<Packet>,
    digest: Digest,
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
                names: machines
                    .map(|(index, name)| (name.clone(), Machine(index)))
                    .collect(),
                links: Links::new(hosts.len(), seed),
                hosts,
                listening: BTreeMap::new(),
                next_port: FIRST_PORT,
                resets: BTreeMap::new(),
                forget: Vec::new(),
                digest: Digest::new(),
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
                due.append(&mut state.forget);
                state.links.take_due(now, &mut due);
                state.remember(&due);
                state.links.next()
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

    /// A packet leaves a machine.
    fn route(&mut self, now: Time, packet: Packet) {
        let Transport::Tcp(segment) = &packet.payload else {
            return;
        };
        let flags = u64::from(segment.flags.syn)
            | u64::from(segment.flags.ack) << 1
            | u64::from(segment.flags.fin) << 2
            | u64::from(segment.flags.rst) << 3;
        let ports = (segment.src_port, segment.dst_port);
        let both = u64::from(ports.0) << 16 | u64::from(ports.1);
        let numbers = u64::from(segment.seq) << 32 | u64::from(segment.ack);
        self.digest.note(&[now, both, numbers, flags], &segment.payload);
        let (Some(from), Some(to)) = (self.machine(packet.src), self.machine(packet.dst)) else {
            return;
        };
        let flags = segment.flags;
        let sort = match (flags.syn, flags.ack, flags.fin || flags.rst) {
            (true, false, _) => Sort::Opening,
            (false, true, false) if segment.payload.is_empty() => Sort::Acknowledgement,
            _ => Sort::Substance,
        };
        let what = packet;
        self.links.send(
            now,
            Parcel {
                from,
                to,
                ports,
                sort,
                what,
            },
        );
    }

    /// These arrive: a SYN, or the answer to one, begins a connection of the machine that gets it.
    fn remember(&mut self, packets: &[Packet]) {
        for packet in packets {
            let Transport::Tcp(segment) = &packet.payload else {
                continue;
            };
            if segment.flags.syn
                && let Some(machine) = self.machine(packet.dst)
            {
                let mut reset = packet.clone();
                if let Transport::Tcp(segment) = &mut reset.payload {
                    segment.flags = TcpFlags {
                        rst: true,
                        ..TcpFlags::default()
                    };
                }
                self.resets.entry(machine).or_default().push(reset);
            }
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
        self.state().links.cut(now, from, to, cut);
        self.stir();
    }

    fn slow(&self, from: Machine, to: Machine, most: Time) {
        self.state().links.slow(from, to, most);
    }

    fn lossy(&self, from: Machine, to: Machine, one_in: u64) {
        self.state().links.lossy(from, to, one_in);
    }

    fn power(&self, machine: Machine, on: bool) {
        let now = self.now();
        let mut state = self.state();
        state.links.power(now, machine, on);
        if !on {
            // Otherwise its kernel would answer for connections that nobody has any more.
            let resets = state.resets.remove(&machine).unwrap_or_default();
            state.forget.extend(resets);
        }
        drop(state);
        self.stir();
    }

    fn reaches(&self, from: Machine, to: Machine) -> bool {
        self.state().links.reaches(from, to)
    }

    fn hash(&self) -> u64 {
        self.state().digest.hash
    }

    fn packets(&self) -> u64 {
        self.state().digest.packets
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
