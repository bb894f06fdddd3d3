//! What can stand in the queue.

use surus_core::Action;
use surus_core::input::Input;
use surus_core::types::ActionId;

use crate::fast::host::Rpc;
use crate::model::etcd::single::Response;

/// Something that happens.
#[derive(Debug, Clone)]
pub enum Event {
    /// The supervisor starts the agent.
    Boot(usize),
    /// The core asked to be called.
    Wake(usize, u64, u64),
    /// The agent hears something.
    Input(usize, u64, Box<Input>),
    /// A frozen agent goes on.
    Thaw(usize),
    /// The host has power again.
    PowerOn(usize),
    /// A request reaches etcd.
    EtcdRequest(Box<Rpc>),
    /// Its answer reaches the agent.
    EtcdAnswer(Box<Rpc>, Box<Response>),
    /// The agent waits no longer.
    EtcdTimeout(usize, u64, ActionId),
    /// etcd looks for leases that expired.
    EtcdExpiry,
    /// A stage of an order that the agent carries out itself.
    Stage(usize, u64, Box<Action>, u8),
    /// A server is up.
    PgReady(usize, u64),
    /// A promotion is done.
    PgPromoted(usize, u64, u32),
    /// The checkpoint that follows a promotion by itself is done.
    PgCheckpoint(usize, u64),
    /// A stop is done: (node, server, fast).
    PgStopped(usize, u64, bool),
    /// A hung server goes on.
    PgThaw(usize, u64),
    /// WAL arrives at a replica.
    Replicate(usize, u64),
    /// A replica has replayed what it has.
    Replay(usize, u64),
    /// The guard's deadline, of this version.
    GuardDue(usize, u64),
    /// A question of one member reaches another: (from, its agent, to, question, failsafe).
    Ask(usize, u64, usize, u64, bool),
    /// Its answer: (asker, its agent, who, question, what).
    Answer(usize, u64, usize, u64, Box<Option<surus_core::view::PeerStatus>>),
    /// A failsafe answer.
    Grant(usize, u64, usize, u64, bool),
    /// The asker waits no longer.
    AskOver(usize, u64, u64),
    /// Clients write.
    Clients,
    /// Walreceivers and watches reconnect.
    Reconnect,
    /// A fault of the plan begins.
    Fault(usize),
    /// A person's ttl and pause reach a node.
    Configure(usize, Option<u64>, Option<bool>),
}
