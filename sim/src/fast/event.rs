//! What can stand in the queue.

use std::time::Duration;

use surus_core::Action;
use surus_core::input::Input;
use surus_core::types::ActionId;
use surus_scenarios::{Name, Strike};

use crate::fast::clients::Reply;
use crate::fast::dcs::keys::{Held, Key};
use crate::fast::dcs::{Heard, Sent};
use crate::fast::story::Mend;
use crate::fast::wire::Parcel;
use crate::model::etcd::{Header, Told};

/// Something that happens.
#[derive(Debug, Clone)]
pub enum Event {
    /// The supervisor starts the agent.
    Boot(usize),
    /// The core asked to be called.
    Wake(usize, u64),
    /// The agent hears something.
    Input(usize, u64, Box<Input>),
    /// A frozen agent goes on.
    Thaw(usize),
    /// The host has power again.
    PowerOn(usize),
    /// A request reaches a member of etcd.
    EtcdRequest(Box<Sent>),
    /// Its answer reaches the agent.
    EtcdAnswer(Box<Heard>),
    /// The agent waits no longer for the answer to an attempt: (node, its agent, order, attempt).
    EtcdLate(usize, u64, ActionId, u64),
    /// An order begins this round of asking.
    EtcdRound(usize, u64, ActionId, u32),
    /// A watch reaches a member of etcd: (node, its agent, member, watch, start, process).
    EtcdWatch(usize, u64, usize, u64, i64, u64),
    /// A message of a watch reaches the agent.
    EtcdTold(usize, u64, u64, Header, Box<Told<Key, Held>>),
    /// A watch may have been silent for too long.
    EtcdSilence(usize, u64, u64),
    /// The agent begins to watch again.
    EtcdFollow(usize, u64),
    /// etcd has something to do.
    EtcdTick,
    /// A cut in the network ends.
    EtcdLinks,
    /// A member of etcd is started.
    EtcdStart(usize),
    /// A frozen member of etcd goes on.
    EtcdThaw(usize),
    /// etcd's database is full no longer.
    EtcdSpace,
    /// A stage of an order that the agent carries out itself.
    Stage(usize, u64, Box<Action>, u8),
    /// A server wanted to be called now.
    PgTick(usize),
    /// A server stops only now, although that was reported done: a planted bug.
    PgStopLate(usize, u64),
    /// A hung server goes on.
    PgThaw(usize, u64),
    /// A fault of a server or its disk is over.
    PgMend(usize, Mend),
    /// A message of another server arrives at this node.
    Wire(usize, Parcel),
    /// What waits on the way from one node to another is tried again.
    WireRetry(usize, usize),
    /// The guard's deadline, of this version.
    GuardDue(usize, u64),
    /// A question of one member reaches another: (from, its agent, to, question, for how long to grant if it is one of failsafe).
    Ask(usize, u64, usize, u64, Option<Duration>),
    /// Its answer: (asker, its agent, who, question, what).
    Answer(usize, u64, usize, u64, Box<Option<surus_core::view::PeerStatus>>),
    /// A failsafe answer: (asker, its agent, who, question, granted). `None`: nobody is there.
    Grant(usize, u64, usize, u64, Option<bool>),
    /// The asker waits no longer.
    AskOver(usize, u64, u64),
    /// A client begins something.
    ClientAct(usize),
    /// What a client sent reaches its server: (client, attempt).
    ClientRequest(usize, u64),
    /// Its answer reaches the client.
    ClientReply(usize, u64, Reply),
    /// A client looks whether it has waited long enough.
    ClientTimeout(usize),
    /// A router asks a member: (router, node).
    Poll(usize, usize),
    /// The question reaches the member: (router, node, question).
    PollArrives(usize, usize, u64),
    /// The answer reaches the router.
    Polled(usize, usize, u64, bool),
    /// A host that stood still goes on.
    HostThaw(usize),
    /// A trap has sprung at this member.
    Sprung(Box<Strike>, usize),
    /// A step of the story is over.
    StepOver(usize),
    /// A change of the configuration reaches a node.
    Configure(usize, Box<Change>),
}

/// A change of the configuration.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Change {
    /// The cluster is paused, or resumed.
    Pause(bool),
    /// A setting of the whole cluster, as written.
    Set(Name, Name),
    /// A tag of the member, as written.
    Tag(Name, Name),
}

/// Which part of a host an event happens in: what stands still when that does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Part {
    /// The agent, of this epoch.
    Agent(u64),
    /// PostgreSQL, or the guard.
    Rest,
}

impl Event {
    /// The host that must run for this to happen, and which part of it.
    #[must_use]
    pub fn part(&self) -> Option<(usize, Part)> {
        Some(match self {
            Self::Wake(node, epoch)
            | Self::Input(node, epoch, _)
            | Self::EtcdLate(node, epoch, ..)
            | Self::EtcdRound(node, epoch, ..)
            | Self::EtcdTold(node, epoch, ..)
            | Self::EtcdSilence(node, epoch, _)
            | Self::EtcdFollow(node, epoch)
            | Self::Stage(node, epoch, ..)
            | Self::Answer(node, epoch, ..)
            | Self::Grant(node, epoch, ..)
            | Self::AskOver(node, epoch, _) => (*node, Part::Agent(*epoch)),
            Self::EtcdAnswer(heard) => (heard.node, Part::Agent(heard.epoch)),
            Self::Boot(node)
            | Self::PgTick(node)
            | Self::PgStopLate(node, _)
            | Self::PgThaw(node, _)
            | Self::Wire(node, _)
            | Self::WireRetry(node, _)
            | Self::GuardDue(node, _) => (*node, Part::Rest),
            _ => return None,
        })
    }
}
