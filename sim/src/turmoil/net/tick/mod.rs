//! The second network: `turmoil`, whose time goes forward by a fixed tick, machine by machine.
//!
//! Each machine is a host of `turmoil` with a runtime of its own. A tick is an instant: every machine runs what is due at it, in an
//! order that the seed draws anew for each tick, and then the time is the next tick's. So what two machines do at one time is
//! done in either order, which [`jump`](super::jump) leaves to the order of its one runtime.
//!
//! `turmoil` knows two ways to disturb a link. A partition drops segments, and its TCP never sends one again; holding a link delays
//! them, but both ways at once. So here every link is held for good, and the driver releases each segment by itself when it is due
//! by `links`: cut one way, slow, lossy, dark are then what they are on `jump`, and nothing is lost that TCP would send again.
//!
//! A run takes about four times as long as on `jump`: `turmoil` pays for each machine in each tick.
//!
//! What is different from `jump`:
//! - Answers to a SYN pass beside `turmoil`'s links. Here an answer is sent after each of them, which whoever dials waits for; but the
//!   server knows of the connection from the SYN on, even if the client has given up or cannot be reached.
//! - A SYN that is under way when its client gives up occupies the client's port for ever; there are enough of them.
//! - There is no window in bytes: a sender waits when [`WINDOW`] writes are not read yet. A write is one segment.
//! - A machine talks to itself past all links, and takes a tick for each segment.
//! - A machine that gets data for a connection that it does not know resets it; there are no keep-alives, and no sequence numbers
//!   that a reset must match.

mod socket;

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::fmt;
use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::rc::Rc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::runtime::Handle;
use tokio::sync::oneshot;
use tokio::task::AbortHandle;
use turmoil::net::{TcpListener, TcpStream};
use turmoil::{Builder, LinksIter, Protocol, Segment, Sim};

use super::super::halt;
use super::super::interpose::{self, Interposed};
use super::digest::Digest;
use super::links::{Links, Parcel, Sort};
use super::{BoxFuture, Driver, Listener, Machine, Net, Stream};
use crate::clock::{MS, Time};
use socket::{Claim, Door, Socket};

/// The tick: the resolution of tokio's timers. With a longer one a timer would ring in the middle of a tick, at a time that the other
/// machines have already passed or not yet come to, and the models are told of one time by all of them.
const TICK: Time = MS;
/// Writes that are not read yet, on one connection and one way.
pub const WINDOW: usize = 1024;

/// What is on a link.
#[derive(Debug)]
enum Freight {
    /// A segment that `turmoil` holds, by its number.
    Segment(u64),
    /// The answer to a SYN.
    Answer(oneshot::Sender<()>),
}

struct State {
    links: Links<Freight>,
    digest: Digest,
    /// Who listens where.
    listening: BTreeSet<(Machine, u16)>,
}

/// The network.
pub struct Tick {
    state: Mutex<State>,
    now: AtomicU64,
    over: AtomicBool,
    names: BTreeMap<String, Machine>,
    addresses: Vec<IpAddr>,
    runtimes: Vec<Handle>,
}

impl fmt::Debug for Tick {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Tick({} machines)", self.addresses.len())
    }
}

/// The segments that `turmoil` holds on one of its links, in its order.
#[derive(Debug, Default)]
struct Held {
    numbers: VecDeque<u64>,
    due: bool,
}

/// The network with what it runs on. It stays on the thread that made it.
pub struct Ticking {
    sim: Sim<'static>,
    tick: Arc<Tick>,
    /// By the place of the link in `turmoil`'s list.
    held: Vec<Held>,
    /// Where a segment is held.
    places: BTreeMap<u64, usize>,
    /// Segments so far.
    count: u64,
    _interposed: Interposed,
}

impl Ticking {
    /// A network of these machines, at time zero.
    #[must_use]
    pub fn new(seed: u64, names: &[String]) -> Self {
        let interposed = Interposed::begin(seed);
        let mut sim = Builder::new()
            .rng_seed(seed)
            .tick_duration(Duration::from_nanos(TICK))
            .simulation_duration(Duration::MAX)
            .tcp_capacity(WINDOW)
            .ephemeral_ports(10_000..=u16::MAX)
            .enable_random_order()
            .build();
        let runtimes = Rc::new(RefCell::new(Vec::new()));
        for name in names {
            let runtimes = Rc::clone(&runtimes);
            // What runs on a machine comes later, through its runtime.
            sim.host(name.as_str(), move || {
                runtimes.borrow_mut().push(Handle::current());
                std::future::pending()
            });
        }
        let addresses: Vec<IpAddr> = names.iter().map(|name| sim.lookup(name.as_str())).collect();
        for (index, one) in addresses.iter().enumerate() {
            for other in &addresses[..index] {
                sim.hold(*one, *other);
            }
        }
        let machines = names.iter().enumerate();
        let tick = Arc::new(Tick {
            state: Mutex::new(State {
                links: Links::new(names.len(), seed),
                digest: Digest::new(),
                listening: BTreeSet::new(),
            }),
            now: AtomicU64::new(0),
            over: AtomicBool::new(false),
            names: machines
                .map(|(index, name)| (name.clone(), Machine(index)))
                .collect(),
            addresses,
            runtimes: runtimes.take(),
        });
        Self {
            sim,
            tick,
            held: Vec::new(),
            places: BTreeMap::new(),
            count: 0,
            _interposed: interposed,
        }
    }

    /// What was sent in the tick before gets its number and goes on its way.
    fn collect(&mut self, sent: Time) {
        let Self {
            sim,
            tick,
            held,
            places,
            count,
            ..
        } = self;
        let mut state = tick.state();
        let State { links, digest, .. } = &mut *state;
        sim.links(|all| {
            for (place, link) in all.enumerate() {
                if held.len() == place {
                    held.push(Held::default());
                }
                let known = &mut held[place].numbers;
                for segment in link.skip(known.len()) {
                    let (source, target) = segment.pair();
                    let (Some(from), Some(to)) = (tick.machine(source.ip()), tick.machine(target.ip()))
                    else {
                        unreachable!("a link of turmoil is between two of its hosts");
                    };
                    let ports = (source.port(), target.port());
                    note(digest, sent, (source, target), segment.protocol());
                    *count += 1;
                    known.push_back(*count);
                    places.insert(*count, place);
                    let what = Freight::Segment(*count);
                    // What is lost stays in turmoil's list, and is never released.
                    links.send(
                        sent,
                        Parcel {
                            from,
                            to,
                            ports,
                            sort: Sort::Substance,
                            what,
                        },
                    );
                }
            }
        });
    }

    /// What is due arrives with the next step.
    fn deliver(&mut self, now: Time) {
        let mut due = Vec::new();
        self.tick.state().links.take_due(now, &mut due);
        let mut released = BTreeSet::new();
        for freight in due {
            match freight {
                Freight::Segment(number) => {
                    if let Some(place) = self.places.remove(&number) {
                        self.held[place].due = true;
                        released.insert(number);
                    }
                }
                // Whoever dialled may have given up.
                Freight::Answer(waiting) => drop(waiting.send(())),
            }
        }
        if released.is_empty() {
            return;
        }
        let held = &mut self.held;
        self.sim.links(|all: LinksIter<'_>| {
            for (link, held) in all.zip(held) {
                if std::mem::take(&mut held.due) {
                    for (segment, number) in link.zip(&held.numbers) {
                        if released.contains(number) {
                            segment.deliver();
                        }
                    }
                    // The step takes them from its list before anything is sent.
                    held.numbers.retain(|number| !released.contains(number));
                }
            }
        });
    }
}

/// A segment was sent.
fn note(digest: &mut Digest, at: Time, (source, target): (SocketAddr, SocketAddr), protocol: &Protocol) {
    let (kind, number, payload): (u64, u64, &[u8]) = match protocol {
        Protocol::Tcp(Segment::Syn(_)) => (0, 0, &[]),
        Protocol::Tcp(Segment::Data(number, bytes)) => (1, *number, bytes),
        Protocol::Tcp(Segment::Fin(number)) => (2, *number, &[]),
        Protocol::Tcp(Segment::Rst) => (3, 0, &[]),
        Protocol::Udp(datagram) => (4, 0, &datagram.0),
    };
    let word = |address: SocketAddr| match address.ip() {
        IpAddr::V4(ip) => u64::from(ip.to_bits()) << 16 | u64::from(address.port()),
        IpAddr::V6(_) => u64::from(address.port()),
    };
    digest.note(&[at, word(source), word(target), kind, number], payload);
}

impl Driver for Ticking {
    fn net(&self) -> Arc<dyn Net> {
        Arc::clone(&self.tick) as Arc<dyn Net>
    }

    fn run_until(&mut self, time: Time) {
        loop {
            let now = self.tick.now();
            if time <= now {
                return;
            }
            interpose::set_now(now);
            self.collect(now.saturating_sub(TICK));
            self.deliver(now);
            if let Err(error) = self.sim.step() {
                panic!("turmoil ended the run: {error}");
            }
            self.tick.now.store(now + TICK, Ordering::Relaxed);
            // A trap has sprung within this tick.
            if halt::taken() {
                return;
            }
        }
    }
}

impl Drop for Ticking {
    /// The tasks that are left drop their sockets, and nobody is told.
    fn drop(&mut self) {
        self.tick.over.store(true, Ordering::Relaxed);
    }
}

impl Tick {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn machine(&self, address: IpAddr) -> Option<Machine> {
        self.addresses
            .iter()
            .position(|known| *known == address)
            .map(Machine)
    }

    /// Its code runs now: `turmoil`'s sockets are those of the host whose runtime it is.
    fn here(&self, machine: Machine) -> bool {
        Handle::try_current().is_ok_and(|runtime| runtime.id() == self.runtimes[machine.0].id())
    }

    fn socket(self: &Arc<Self>, machine: Machine, stream: TcpStream) -> Stream {
        Box::new(Socket::new(Arc::clone(self), machine, stream))
    }

    /// Waits for what a machine answers to a SYN.
    async fn answered(&self, by: Machine, port: u16, to: Machine) {
        let (sender, answer) = oneshot::channel();
        let parcel = Parcel {
            from: by,
            to,
            ports: (port, 0),
            sort: Sort::Substance,
            what: Freight::Answer(sender),
        };
        self.state().links.send(self.now(), parcel);
        if answer.await.is_err() {
            // It was lost with the power of who sent it.
            std::future::pending::<()>().await;
        }
    }
}

impl Net for Tick {
    fn now(&self) -> Time {
        self.now.load(Ordering::Relaxed)
    }

    fn enter(&self, machine: Machine) {
        debug_assert!(
            self.over.load(Ordering::Relaxed) || self.here(machine),
            "{machine:?} is not the one that runs"
        );
    }

    fn start(&self, on: Machine, task: BoxFuture<'static, ()>) -> AbortHandle {
        self.runtimes[on.0].spawn(task).abort_handle()
    }

    fn dial(self: Arc<Self>, from: Machine, to: &str, port: u16) -> BoxFuture<'static, io::Result<Stream>> {
        let to = match to {
            "localhost" | "127.0.0.1" => Some(from),
            name => self.names.get(name).copied(),
        };
        Box::pin(async move {
            let to = to.ok_or(io::ErrorKind::NotFound)?;
            let connected = TcpStream::connect(SocketAddr::new(self.addresses[to.0], port)).await;
            let connected = connected.map(|stream| self.socket(from, stream));
            if to != from {
                self.answered(to, port, from).await;
            }
            connected
        })
    }

    fn listen(self: Arc<Self>, on: Machine, port: u16) -> BoxFuture<'static, io::Result<Box<dyn Listener>>> {
        Box::pin(async move {
            let claim = Claim::new(Arc::clone(&self), (on, port))?;
            let inner = loop {
                match TcpListener::bind((IpAddr::V4(Ipv4Addr::UNSPECIFIED), port)).await {
                    // The one before is dropped as soon as its task gets to run.
                    Err(error) if error.kind() == io::ErrorKind::AddrInUse => {
                        tokio::task::yield_now().await;
                    }
                    bound => break bound?,
                }
            };
            Ok(Box::new(Door::open(claim, inner)) as Box<dyn Listener>)
        })
    }

    fn cut(&self, from: Machine, to: Machine, cut: bool) {
        self.state().links.cut(self.now(), from, to, cut);
    }

    fn slow(&self, from: Machine, to: Machine, most: Time) {
        self.state().links.slow(from, to, most);
    }

    fn lossy(&self, from: Machine, to: Machine, one_in: u64) {
        self.state().links.lossy(from, to, one_in);
    }

    fn power(&self, machine: Machine, on: bool) {
        self.state().links.power(self.now(), machine, on);
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
