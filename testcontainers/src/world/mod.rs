//! The world of containers plays a [`Story`](surus_scenarios::Story): a container per host, real servers, real signals and packets.
//!
//! ```text
//!   this process                                      10.91.x.0/24, a network of the run's own
//!   ┌──────────────────────────┐    SQL (a port range a client)   ┌──────────────┐ ┌──────────────┐
//!   │ clients: acknowledgements├──────────────────────────────────┤ member       │ │ router       │
//!   │ observers: roles, keys   ├──────────────────────────────────┤ agent, guard │ │ HAProxy      │
//!   │ player: faults           ├── docker exec, pause, kill ──────┤ PostgreSQL   │ └──────────────┘
//!   └──────────────────────────┘                                  │ (etcd member)│ ┌──────────────┐
//!                                                                 └──────────────┘ │ etcd member  │
//!                                                                                  └──────────────┘
//! ```
//!
//! - `hosts`: containers and the processes in them; `make`: from nothing to a world, and away again
//! - `host`, `postgres`, `disk`, `net`, `etcd`: the faults; `operator`: what people do; `trap`, `orders`: faults that wait for a fact or an order
//! - `target`: who is meant by `leader`, `candidate`, …; `judge`: what holds, by what servers answer and clients were told
//!
//! What this world cannot do it says, so that a story with such a step waits instead of passing.
//! Time is real. Before the first step nothing is of interest, so when all is well the clock is set to just before it.

mod disk;
mod etcd;
mod host;
mod hosts;
mod judge;
mod make;
mod net;
mod operator;
mod orders;
mod postgres;
mod target;
mod trap;

use std::path::PathBuf;
use std::time::Duration;

use surus_ci::client::Writer;
use surus_ci::error::{Result, chain};
use surus_scenarios::{
    Expectation, Fault, Load, Name, Nanos, Operator, Shape, Story, Strike, Taken, Trap, Verdict,
    World as Stage,
};
use tokio::runtime::Handle;
use tokio::task::JoinHandle;

use crate::dcs::Etcd;
use crate::docker::{Docker, Network};
use crate::observer::Shared;
use surus_ci::lock;

pub use make::Site;
pub use orders::Ordered;

use hosts::Host;
use net::Bar;
use orders::Tail;

/// What stories can require of this world.
const FEATURES: &[&str] = &[
    "clients",
    "routers",
    "histories",
    "pause",
    "backend_crashes",
    "stuck_backends",
    "stalled_receivers",
    "disk_faults",
    "read_doors",
    "parameters",
    "synchronous_mode",
    "reset_settings",
];
/// How often the world looks whether something is due, or a trap springs.
const TURN: Duration = Duration::from_millis(10);

/// What ends, or goes on, at its time.
type Then = Box<dyn FnOnce(&mut World) + Send>;

/// A client of the story.
#[derive(Debug)]
struct Client {
    writer: Writer,
}

/// A cluster in containers.
pub struct World {
    handle: Handle,
    docker: Docker,
    network: Network,
    shape: Shape,
    /// The flaw of every agent's core.
    flaw: Option<String>,
    /// Members' disks are small and in memory.
    small_disks: bool,
    /// Where the run's files are.
    directory: PathBuf,
    /// Members first, in the shape's order; then etcd's hosts, then routers.
    hosts: Vec<Host>,
    /// Of each member of etcd, the host it lives on.
    etcd_hosts: Vec<usize>,
    router_hosts: Vec<usize>,
    etcd: Etcd,
    clients: Vec<Client>,
    seen: Shared,
    tasks: Vec<JoinHandle<()>>,
    /// What is due and when, in the order of asking; [`Nanos::FOREVER`] is at the end of all faults.
    due: Vec<(Nanos, Then)>,
    /// What keeps packets from passing.
    bars: Vec<Bar>,
    last_bar: u64,
    traps: Vec<Trap>,
    /// The logs of agents, if the story has a trap that waits for an order.
    tails: Vec<Tail>,
    /// What traps that have sprung do, when, and at which member they sprang.
    sprung: Vec<(Nanos, Strike, Option<usize>)>,
    /// The member at which a trap sprang.
    here: Option<usize>,
    /// For what is by chance.
    dice: u64,
    /// Members' files beside the data directory, when the faults began.
    kept: Option<Vec<String>>,
    /// Something of the harness failed: no verdict is worth anything.
    broken: Option<String>,
}

/// It had no effect, and why.
fn void(why: impl Into<String>) -> Taken {
    Taken::Void(why.into())
}

/// This world cannot do it.
fn unable(why: impl Into<String>) -> Taken {
    Taken::Unable(why.into())
}

/// Nobody is meant.
fn nobody() -> Taken {
    void("nobody is meant by that now")
}

/// A duration.
const fn span(nanos: Nanos) -> Duration {
    Duration::from_nanos(nanos.0)
}

impl World {
    /// The time now.
    fn time(&self) -> Nanos {
        lock(&self.seen).clock.now()
    }

    /// Adds a line to the story of the run.
    fn tell(&self, line: impl Into<String>) {
        lock(&self.seen).tell(line);
    }

    /// `then` happens `after` so long, at the latest when all faults end.
    fn lasts(&mut self, after: Nanos, then: impl FnOnce(&mut Self) + Send + 'static) {
        let at = self.time().plus(after);
        self.due.push((at, Box::new(then)));
    }

    /// A number below `below`, by the run's own chance.
    fn below(&mut self, below: usize) -> usize {
        // SplitMix64.
        self.dice = self.dice.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.dice;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^= mixed >> 31;
        usize::try_from(mixed % below.max(1) as u64).unwrap_or(0)
    }

    /// What is due happens, and traps spring.
    fn turn(&mut self) {
        let now = self.time();
        loop {
            let next = self.due.iter().enumerate().filter(|(_, (at, _))| *at <= now);
            let Some((index, _)) = next.min_by_key(|(_, (at, _))| *at) else {
                break;
            };
            let (_, then) = self.due.remove(index);
            then(self);
        }
        self.spring();
    }

    /// What a fault did to the machinery, as a step's outcome. That the machinery failed is remembered: it is not the product's fault.
    fn outcome(&mut self, what: &str, done: Result<()>) -> Taken {
        match done {
            Ok(()) => Taken::Done,
            Err(error) => {
                let why = format!("{what}: {}", chain(&error));
                self.tell(format!("the harness failed: {why}"));
                self.broken.get_or_insert(why);
                Taken::Done
            }
        }
    }

    /// What this world does not have and the story says, in its first lines, that it needs.
    #[must_use]
    pub fn lacks(story: &Story) -> Vec<String> {
        let features = story.requires.iter().map(Name::as_str);
        let features = features
            .filter(|feature| !FEATURES.contains(feature))
            .map(|feature| format!("requires {feature}"));
        let shape = crate::yml::lacks(&story.shape).map(str::to_owned);
        features.chain(shape).collect()
    }

    /// Something of the harness failed, so that no verdict is worth anything.
    #[must_use]
    pub fn broken(&self) -> Option<&str> {
        self.broken.as_deref()
    }
}

impl Stage for World {
    fn now(&self) -> Nanos {
        self.time()
    }

    fn run_until(&mut self, time: Nanos) {
        loop {
            self.turn();
            let now = self.time();
            if time <= now {
                return;
            }
            std::thread::sleep(TURN.min(span(time.minus(now))));
        }
    }

    fn strike(&mut self, fault: &Fault) -> Taken {
        self.remember();
        self.tell(format!("fault: {fault}"));
        let taken = match fault {
            Fault::Host(fault) => self.host_fault(fault),
            Fault::Postgres(fault) => self.postgres_fault(fault),
            Fault::Net(fault) => self.net_fault(fault),
            Fault::Etcd(fault) => self.etcd_fault(fault),
        };
        self.taken(taken)
    }

    fn operate(&mut self, act: &Operator) -> Taken {
        self.remember();
        self.tell(format!("a person: {act}"));
        let taken = self.operator_act(act);
        self.taken(taken)
    }

    fn load(&mut self, load: &Load) -> Taken {
        self.tell(format!("load: {load}"));
        let taken = self.client_load(load);
        self.taken(taken)
    }

    fn trap(&mut self, trap: &Trap) -> Taken {
        self.tell(format!("trap: {trap}"));
        self.set_trap(trap)
    }

    fn heal(&mut self) {
        self.tell("all faults end");
        self.heal_all();
    }

    fn judge(&mut self, expectation: &Expectation, since: Nanos) -> Verdict {
        self.verdict(expectation, since)
    }

    fn violated(&self) -> Option<String> {
        lock(&self.seen).violation.clone()
    }

    fn has(&self, feature: &str) -> bool {
        FEATURES.contains(&feature)
    }
}

impl World {
    fn taken(&self, taken: Taken) -> Taken {
        match &taken {
            Taken::Done => {}
            Taken::Void(why) => self.tell(format!("  without effect: {why}")),
            Taken::Unable(why) => self.tell(format!("  not possible here: {why}")),
        }
        taken
    }
}
