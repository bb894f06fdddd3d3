//! What a client of the server is told: the views and functions that the agent, its tools and people ask.

use std::collections::BTreeMap;

use surus_core::types::{Lsn, SystemId, Timeline};
use surus_core::view::{self, HistoryLine};

use super::commit::candidates;
use super::control::ControlFile;
use super::directory::Cluster;
use super::sender::SenderState;
use super::server::{Refusal, Server};
use super::settings::Conninfo;
use super::slots::Slot;
use super::standby::{ReceiverState, Standby};
use crate::clock::Time;

/// The row that the agent's probe reads, column by column.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Probe {
    /// `pg_current_wal_lsn()`, and the timeline of its file; `None` in recovery.
    pub written: Option<(Lsn, Timeline)>,
    /// `pg_last_wal_replay_lsn()`; `None` on a server that has never been in recovery since its start.
    pub replayed: Option<Lsn>,
    /// `pg_last_wal_receive_lsn()`.
    pub received: Option<Lsn>,
    /// `pg_stat_wal_receiver.status`; `None` without a walreceiver that is connected.
    pub receiver: Option<&'static str>,
    /// `pg_stat_wal_receiver.received_tli`, once something of that timeline has been received.
    pub receiver_timeline: Option<Timeline>,
    /// `pg_control_checkpoint()`, `pg_control_recovery()` and the like.
    pub control: ControlFile,
    /// Those in `pg_stat_replication` whose walsender streams or catches up.
    pub standbys: BTreeMap<String, view::Standby>,
    /// `synchronous_standby_names`, as a session that is there already has it.
    pub synchronous: String,
    /// Its physical slots with their `restart_lsn`.
    pub slots: BTreeMap<String, Lsn>,
    /// `primary_conninfo`.
    pub conninfo: Option<Conninfo>,
    /// `primary_slot_name`.
    pub slot: Option<String>,
    /// Stands for `pg_postmaster_start_time()`: changes with each start.
    pub started: u64,
}

/// A row of `pg_stat_replication`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Replication {
    /// `application_name`.
    pub application_name: String,
    /// `state`.
    pub state: &'static str,
    /// `sent_lsn`.
    pub sent: Lsn,
    /// `flush_lsn`; `None` before the standby said anything.
    pub flushed: Option<Lsn>,
    /// `replay_lsn`.
    pub applied: Option<Lsn>,
    /// `sync_state`.
    pub sync_state: &'static str,
    /// `sync_priority`.
    pub sync_priority: u32,
    /// `pid`.
    pub pid: u32,
    /// Stands for `reply_time`: when its standby was last heard.
    pub heard: Time,
}

impl Server {
    /// Asks what the agent's probe asks, on a new connection.
    ///
    /// # Errors
    ///
    /// The server lets nobody in, or does not answer.
    pub fn probe(&self) -> Result<Probe, Refusal> {
        self.accepts()?;
        let (cluster, process) = self
            .cluster()
            .zip(self.process.as_ref())
            .ok_or(Refusal::NoCluster)?;
        let standby = process.standby.as_ref();
        let receiver = standby
            .and_then(|standby| standby.receiver.as_ref())
            .filter(|receiver| receiver.state != ReceiverState::Connecting);
        let received_timeline = standby.map_or(0, |standby| standby.received_timeline);
        let slots = cluster.slots.iter().filter(|(_, slot)| slot.is_physical());
        let mut standbys: BTreeMap<String, view::Standby> = BTreeMap::new();
        for sender in process.senders.iter().filter(|sender| sender.streams()) {
            let doubled = standbys.contains_key(&sender.application_name);
            let standby = view::Standby {
                streaming: sender.caught_up(),
                position: Lsn(sender.reported[1]),
                doubled,
            };
            standbys.insert(sender.application_name.clone(), standby);
        }
        for rogue in &self.ills.rogues {
            let rogue = standbys.entry(rogue.clone()).or_default();
            rogue.doubled = rogue.streaming;
        }
        Ok(Probe {
            written: standby
                .is_none()
                .then(|| (Lsn(cluster.log.written), Timeline(cluster.log.timeline()))),
            replayed: standby.map(|standby| Lsn(standby.replayed)),
            received: standby.and_then(|standby| standby.received.map(Lsn)),
            receiver: receiver.map(|receiver| match receiver.state {
                ReceiverState::Waiting => "waiting",
                ReceiverState::Connecting | ReceiverState::Streaming => "streaming",
            }),
            receiver_timeline: receiver
                .filter(|receiver| Some(receiver.start) < standby.and_then(|standby| standby.received))
                .map(|_| Timeline(received_timeline)),
            control: cluster.control,
            standbys,
            synchronous: process.settings.synchronous_standby_names.clone(),
            slots: slots
                .map(|(name, slot)| (name.clone(), Lsn(slot.restart.unwrap_or(0))))
                .collect(),
            conninfo: process.settings.primary_conninfo.clone(),
            slot: process.settings.primary_slot_name.clone(),
            started: self.epoch(),
        })
    }

    /// `pg_is_in_recovery()`.
    ///
    /// # Errors
    ///
    /// The server lets nobody in, or does not answer.
    pub fn in_recovery(&self) -> Result<bool, Refusal> {
        self.accepts()?;
        Ok(!self.primary())
    }

    /// `IDENTIFY_SYSTEM` and `TIMELINE_HISTORY` over a replication connection: identity, timeline, how it came there.
    ///
    /// # Errors
    ///
    /// The server lets nobody in, or does not answer.
    pub fn identify(&self) -> Result<(SystemId, Timeline, Vec<HistoryLine>), Refusal> {
        self.lets_in()?;
        let cluster = self.cluster().ok_or(Refusal::NoCluster)?;
        let timeline = self.served_timeline();
        let lines = cluster.histories.lines(timeline);
        Ok((cluster.control.system_id, Timeline(timeline), lines))
    }

    /// `pg_stat_replication`.
    ///
    /// # Errors
    ///
    /// The server lets nobody in, or does not answer.
    pub fn replication(&self) -> Result<Vec<Replication>, Refusal> {
        self.accepts()?;
        let process = self.process.as_ref().ok_or(Refusal::NotRunning)?;
        let candidates = candidates(process);
        let rows = process.senders.iter().enumerate().map(|(index, sender)| {
            let said = sender.reported[1] != 0;
            Replication {
                application_name: sender.application_name.clone(),
                state: match sender.state {
                    SenderState::Startup => "startup",
                    SenderState::Catchup => "catchup",
                    SenderState::Streaming => "streaming",
                },
                sent: Lsn(sender.sent),
                flushed: said.then_some(Lsn(sender.reported[1])),
                applied: said.then_some(Lsn(sender.reported[2])),
                sync_state: process.sync.state(&candidates, index),
                sync_priority: u32::try_from(sender.priority).unwrap_or(u32::MAX),
                pid: sender.link.standby.0 << 16 | sender.link.number & 0xffff,
                heard: sender.heard,
            }
        });
        Ok(rows.collect())
    }

    /// The checkpointer waits for work, having read its configuration.
    #[must_use]
    pub fn checkpointer_sleeps(&self) -> bool {
        let process = self.process.as_ref();
        process.is_some_and(|process| process.sync_due.is_none() && process.checkpoint.is_none())
    }

    /// `pg_is_wal_replay_paused()`.
    #[must_use]
    pub fn replay_paused(&self) -> bool {
        self.recovery().is_some_and(|standby| standby.paused)
    }

    /// How far this standby has replayed; `None` on a primary and without a server.
    #[must_use]
    pub fn replay_position(&self) -> Option<u64> {
        self.recovery().map(|standby| standby.replayed)
    }

    /// Commits that wait, for the disk or for standbys.
    #[must_use]
    pub fn waiting(&self) -> usize {
        self.process.as_ref().map_or(0, |process| process.pending.len())
    }

    pub(super) fn recovery(&self) -> Option<&Standby> {
        self.process.as_ref()?.standby.as_ref()
    }

    /// The slots.
    #[must_use]
    pub fn slots(&self) -> Option<&BTreeMap<String, Slot>> {
        self.cluster().map(|cluster: &Cluster| &cluster.slots)
    }
}
