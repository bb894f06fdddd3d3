//! A PostgreSQL server: what lives in memory, and the clockwork that moves it.
//!
//! Callers give orders ([`Server::start`], [`Server::promote`], [`Server::commit`] …) and messages ([`Server::receive`]), call
//! [`Server::tick`] when [`Server::next_deadline`] has come, and take what follows from [`Server::effects`]. An order is refused at once or
//! begins something that ends at a later tick.

use std::collections::VecDeque;

use surus_core::types::SystemId;
use surus_core::view::ControlState;

use super::commit::{Fact, Pending};
use super::directory::{Cluster, DataDir, Disk, Unfinished};
use super::message::{Link, Message};
use super::sender::Sender;
use super::settings::{Costs, Peer, Settings};
use super::standby::Standby;
use super::stop::{Ended, Stopping};
use super::sync::SyncNames;
use super::wal::{Origin, Point, Txn};
use crate::clock::Time;
use crate::rng::Rng;

/// Why an order is refused.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Refusal {
    /// No server runs (or none that takes connections answers).
    NotRunning,
    /// A server runs, or backends of a dead one are still attached.
    Running,
    /// "the database system is starting up".
    StartingUp,
    /// "the database system is shutting down".
    ShuttingDown,
    /// The server does not answer.
    Silent,
    /// "cannot execute … during recovery".
    InRecovery,
    /// "recovery is not in progress".
    NotInRecovery,
    /// There is no cluster to work on, or half of one.
    NoCluster,
    /// The disk refuses.
    Disk,
    /// Anything else, in words.
    Other(&'static str),
}

/// Something that came of an order or of time.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Effect {
    /// A message for the network to carry.
    Send {
        /// To whom.
        to: Peer,
        /// On which connection.
        link: Link,
        /// What.
        message: Message,
    },
    /// Something that others want to know of.
    Happened(Happening),
}

/// What happened in a server: facts for traces and checkers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Happening {
    /// It answers queries, as a standby or as a primary.
    Ready {
        /// It accepts writes.
        primary: bool,
    },
    /// Its disk has a new timeline, and it accepts no writes yet.
    Forked {
        /// The timeline it leaves.
        from: u32,
        /// The new timeline.
        timeline: u32,
        /// Where it forks off.
        at: u64,
    },
    /// It ended its recovery and began this timeline here; it accepts writes.
    Promoted {
        /// The timeline it left.
        from: u32,
        /// The new timeline.
        timeline: u32,
        /// Where it forked off.
        at: u64,
    },
    /// The control file shows a new checkpoint.
    Checkpoint,
    /// It crashed and begins anew by itself.
    Crashed(&'static str),
    /// The last process of it is gone.
    Exited(Ended),
    /// A fact about a commit.
    Commit {
        /// Whose.
        txn: Txn,
        /// Its record.
        point: Point,
        /// Which.
        fact: Fact,
    },
    /// The walreceiver streams from there.
    Streaming(Peer),
    /// The walreceiver's connection ended, in words.
    Disconnected(&'static str),
    /// A slot lost its WAL.
    SlotLost(String),
}

/// What the processes of a server are doing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Stage {
    /// Recovery has not come to where connections are taken.
    Starting,
    /// A hot standby.
    Standby,
    /// It accepts writes.
    Primary,
}

/// The processes of a server.
#[derive(Debug, Clone)]
pub(super) struct Process {
    /// The settings in effect.
    pub(super) settings: Settings,
    pub(super) stage: Stage,
    /// When the first stage's next step comes.
    pub(super) start_due: Option<Time>,
    /// Recovery, until it ends.
    pub(super) standby: Option<Standby>,
    pub(super) senders: Vec<Sender>,
    pub(super) pending: VecDeque<Pending>,
    /// When an fsync under way returns, and up to where.
    pub(super) fsync: Option<(Time, u64)>,
    /// When the checkpoint under way is done.
    pub(super) checkpoint: Option<Time>,
    /// When the next comes by itself.
    pub(super) next_checkpoint: Time,
    /// `synchronous_standby_names` as backends and checkpointer have it.
    pub(super) sync: SyncNames,
    /// When they take up the new one.
    pub(super) sync_due: Option<Time>,
    pub(super) stopping: Option<Stopping>,
    /// Stopped by SIGSTOP: what came in the meantime.
    pub(super) hung: Option<Vec<(Link, Message)>>,
    /// The postmaster is gone, and the last backend notices then.
    pub(super) orphaned: Option<Time>,
    /// A backend does not react to signals until then.
    pub(super) stuck: Time,
}

/// What is wrong with a server apart from its disk.
#[derive(Debug, Clone, Default)]
pub struct Ills {
    /// All connections are taken: nobody new is let in but a superuser beside it.
    pub crowded: bool,
    /// The walreceiver reads nothing that it is sent.
    pub stalled: bool,
    /// How much longer each replay takes.
    pub replay: Time,
    /// Names under which something that is no member streams from here.
    pub rogues: std::collections::BTreeSet<String>,
    unread: Vec<(Link, Message)>,
}

/// A PostgreSQL server and its data directory.
#[derive(Debug, Clone)]
pub struct Server {
    pub(super) me: Peer,
    pub(super) costs: Costs,
    pub(super) rng: Rng,
    /// postgresql.conf: in effect after a start, in part after a reload.
    pub settings: Settings,
    /// The data directory.
    pub dir: DataDir,
    /// What is wrong with its disk.
    pub disk: Disk,
    /// How much longer the next start, fast stop or promotion takes.
    pub sluggish: Time,
    /// What else is wrong with it.
    pub ills: Ills,
    pub(super) process: Option<Box<Process>>,
    pub(super) epoch: u64,
    pub(super) writers: u32,
    pub(super) links: u32,
    pub(super) effects: Vec<Effect>,
}

impl Process {
    /// Tells what happens by itself, and when.
    fn dues(&self, mut tell: impl FnMut(&'static str, Time)) {
        let mut at = |what, time: Option<Time>| {
            if let Some(time) = time {
                tell(what, time);
            }
        };
        at("the end of an orphan", self.orphaned);
        at("a step of the start", self.start_due);
        at("an fsync", self.fsync.map(|(due, _)| due));
        at("a change of the synchronous standbys", self.sync_due);
        let stopping = self.stopping.as_ref();
        at(
            "a step of the stop",
            stopping.and_then(|stopping| stopping.due(self)),
        );
        at("a checkpoint", self.checkpoint_due());
        for sender in &self.senders {
            at("a walsender", sender.due(&self.settings));
        }
        if let Some(standby) = &self.standby {
            at("recovery", standby.due(&self.settings));
        }
    }
}

impl Server {
    /// A host with an empty data directory.
    #[must_use]
    pub fn new(me: Peer, costs: Costs, rng: Rng) -> Self {
        Self {
            me,
            costs,
            rng,
            settings: Settings::default(),
            dir: DataDir::Empty,
            disk: Disk::default(),
            sluggish: 0,
            ills: Ills::default(),
            process: None,
            epoch: 0,
            writers: 0,
            links: 0,
            effects: Vec::new(),
        }
    }

    /// Who this is.
    #[must_use]
    pub fn peer(&self) -> Peer {
        self.me
    }

    /// initdb.
    ///
    /// # Errors
    ///
    /// Something is there already.
    pub fn initdb(&mut self, system_id: SystemId) -> Result<(), Refusal> {
        if self.process.is_some() || matches!(self.dir, DataDir::Cluster(_)) {
            return Err(Refusal::Running);
        }
        if self.disk.gone || self.disk.full || self.disk.broken {
            return Err(Refusal::Disk);
        }
        let origin = self.origin();
        self.dir = DataDir::Cluster(Box::new(Cluster::new(system_id, origin)));
        Ok(())
    }

    /// initdb has begun: there is something, and it is no cluster yet.
    pub fn initdb_begin(&mut self) {
        if self.process.is_none() {
            self.dir = DataDir::Incomplete(Unfinished::Initdb);
        }
    }

    /// Somebody empties the data directory.
    pub fn wipe(&mut self) {
        if self.process.is_none() {
            self.dir = DataDir::Empty;
        }
    }

    /// The cluster on disk.
    #[must_use]
    pub fn cluster(&self) -> Option<&Cluster> {
        match &self.dir {
            DataDir::Cluster(cluster) => Some(cluster),
            DataDir::Empty | DataDir::Incomplete(_) => None,
        }
    }

    /// The cluster on disk.
    pub fn cluster_mut(&mut self) -> Option<&mut Cluster> {
        match &mut self.dir {
            DataDir::Cluster(cluster) => Some(cluster),
            DataDir::Empty | DataDir::Incomplete(_) => None,
        }
    }

    /// A process of this server lives: the postmaster, or a backend that outlived it.
    #[must_use]
    pub fn alive(&self) -> bool {
        self.process.is_some()
    }

    /// Names this run of the postmaster: another start has another number.
    #[must_use]
    pub fn epoch(&self) -> u64 {
        self.epoch
    }

    /// It answers a new connection's query.
    #[must_use]
    pub fn answers(&self) -> bool {
        self.accepts().is_ok()
    }

    /// It accepts writes from new connections.
    #[must_use]
    pub fn writable(&self) -> bool {
        self.answers() && self.primary()
    }

    /// It has ended its recovery (and may be stopping or hung).
    #[must_use]
    pub fn primary(&self) -> bool {
        self.process
            .as_ref()
            .is_some_and(|process| process.stage == Stage::Primary)
    }

    /// It is a hot standby (and may be stopping or hung).
    #[must_use]
    pub fn standby(&self) -> bool {
        self.process
            .as_ref()
            .is_some_and(|process| process.stage == Stage::Standby)
    }

    /// Its processes are stopped.
    #[must_use]
    pub fn hung(&self) -> bool {
        self.process
            .as_ref()
            .is_some_and(|process| process.hung.is_some())
    }

    /// It has been told to stop.
    #[must_use]
    pub fn stopping(&self) -> bool {
        self.process
            .as_ref()
            .is_some_and(|process| process.stopping.is_some())
    }

    /// Whether a new connection is let in.
    pub(super) fn accepts(&self) -> Result<(), Refusal> {
        let process = self.process.as_ref().ok_or(Refusal::NotRunning)?;
        if process.hung.is_some() {
            return Err(Refusal::Silent);
        }
        if process.orphaned.is_some() {
            return Err(Refusal::NotRunning);
        }
        if process.stopping.is_some() {
            return Err(Refusal::ShuttingDown);
        }
        if process.stage == Stage::Starting {
            return Err(Refusal::StartingUp);
        }
        Ok(())
    }

    /// Everything that came of the last calls, oldest first.
    pub fn effects(&mut self) -> Vec<Effect> {
        std::mem::take(&mut self.effects)
    }

    /// The same, in exchange for an empty buffer: whoever asks after every call keeps one.
    pub fn swap_effects(&mut self, empty: &mut Vec<Effect>) {
        debug_assert!(empty.is_empty(), "what is in it would come twice");
        std::mem::swap(&mut self.effects, empty);
    }

    /// There is something in [`Server::effects`].
    #[must_use]
    pub fn has_effects(&self) -> bool {
        !self.effects.is_empty()
    }

    pub(super) fn happened(&mut self, what: Happening) {
        self.effects.push(Effect::Happened(what));
    }

    pub(super) fn send(&mut self, to: Peer, link: Link, message: Message) {
        self.effects.push(Effect::Send { to, link, message });
    }

    /// A fresh name for a run of this server's writing.
    pub(super) fn origin(&mut self) -> Origin {
        self.writers += 1;
        Origin {
            server: self.me.0,
            count: self.writers,
        }
    }

    /// The cluster and the process, if there are both.
    pub(super) fn parts(&mut self) -> Option<(&mut Cluster, &mut Process)> {
        match (&mut self.dir, &mut self.process) {
            (DataDir::Cluster(cluster), Some(process)) => Some((cluster, process)),
            _ => None,
        }
    }

    /// The time at which something happens by itself, unless it hangs.
    #[must_use]
    pub fn next_deadline(&self) -> Option<Time> {
        let process = self.process.as_ref()?;
        if process.hung.is_some() {
            return None;
        }
        let mut next = Time::MAX;
        process.dues(|_, due| next = next.min(due));
        (next != Time::MAX).then_some(next)
    }

    /// Does what has become due.
    pub fn tick(&mut self, now: Time) {
        // Each pass moves something on. Without the bound a fault in the model would be a run without end.
        for _ in 0..64 {
            if self.next_deadline().is_none_or(|due| now < due) {
                return;
            }
            self.tick_once(now);
        }
        let mut overdue = Vec::new();
        if let Some(process) = &self.process {
            process.dues(|what, due| overdue.extend((due <= now).then_some(what)));
        }
        panic!("due at {now} ns, whatever is done: {overdue:?}");
    }

    fn tick_once(&mut self, now: Time) {
        let due = |time: Option<Time>| time.is_some_and(|time| time <= now);
        let Some(process) = &self.process else { return };
        if due(process.orphaned) {
            self.vanish(now, Ended::Killed);
            return;
        }
        if due(process.start_due) {
            self.start_step(now);
        }
        self.stop_tick(now);
        let Some(process) = &self.process else { return };
        if due(process.fsync.map(|(due, _)| due)) {
            self.fsync_done(now);
        }
        self.sync_tick(now);
        self.checkpoint_tick(now);
        self.sender_tick(now);
        self.standby_tick(now);
    }

    /// A message of another server arrives.
    pub fn receive(&mut self, now: Time, link: Link, message: Message) {
        let Some(process) = &mut self.process else {
            // The host's kernel answers for a port that nobody listens on, and for connections that nobody has.
            let (other, answer) = match message {
                Message::Close | Message::Refused(_) => return,
                Message::Hello { .. } => (link.standby, Message::Refused(super::message::Refused::NoServer)),
                _ if link.upstream == self.me => (link.standby, Message::Close),
                _ => (link.upstream, Message::Close),
            };
            self.send(other, link, answer);
            return;
        };
        if let Some(waiting) = &mut process.hung {
            waiting.push((link, message));
            return;
        }
        if link.upstream == self.me {
            self.sender_receive(now, link, message);
        } else if self.ills.stalled && matches!(message, Message::Wal(_)) {
            self.ills.unread.push((link, message));
        } else {
            self.standby_receive(now, link, message);
        }
    }

    /// SIGSTOP to all processes.
    pub fn hang(&mut self) {
        if let Some(process) = &mut self.process {
            process.hung.get_or_insert_default();
        }
    }

    /// SIGCONT: what came in the meantime is read, what became due is done.
    pub fn thaw(&mut self, now: Time) {
        let waiting = self.process.as_mut().and_then(|process| process.hung.take());
        for (link, message) in waiting.unwrap_or_default() {
            self.receive(now, link, message);
        }
        self.tick(now);
    }

    /// The walreceiver reads on.
    pub fn unstall(&mut self, now: Time) {
        self.ills.stalled = false;
        for (link, message) in std::mem::take(&mut self.ills.unread) {
            self.receive(now, link, message);
        }
    }

    /// Whether a new connection from another host is let in.
    pub(super) fn lets_in(&self) -> Result<(), Refusal> {
        self.accepts()?;
        if self.ills.crowded {
            return Err(Refusal::Other("too many clients"));
        }
        Ok(())
    }

    /// The state in the control file.
    pub(super) fn set_state(&mut self, state: ControlState) {
        if let Some(cluster) = self.cluster_mut() {
            cluster.control.state = state;
        }
    }
}
