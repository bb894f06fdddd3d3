//! Replication slots: what holds WAL for whom, and how one loses it.

use super::message::Link;
use super::server::{Refusal, Server};
use super::wal::segment_start;

/// What a slot is for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SlotKind {
    /// For a standby.
    Physical,
    /// For a consumer of changes.
    Logical {
        /// `confirmed_flush_lsn`.
        confirmed: u64,
    },
}

/// A replication slot.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Slot {
    /// What it is for.
    pub kind: SlotKind,
    /// `restart_lsn`: WAL from here on is kept; `None` while it reserves nothing.
    pub restart: Option<u64>,
    /// Rows that were live at this position of the log may still be needed: it holds vacuum back. A physical slot has one through
    /// hot_standby_feedback, a logical one always (`catalog_xmin`).
    pub xmin: Option<u64>,
    /// Who streams through it.
    pub active: Option<Link>,
    /// `wal_status` is `lost`: its WAL was removed, for it was further behind than `max_slot_wal_keep_size` allows.
    pub lost: bool,
}

impl Slot {
    /// It is a physical one.
    #[must_use]
    pub fn is_physical(&self) -> bool {
        self.kind == SlotKind::Physical
    }

    /// The WAL it holds back, if it holds any.
    #[must_use]
    pub fn holds(&self) -> Option<u64> {
        self.restart.filter(|_| !self.lost)
    }
}

impl Server {
    /// Creates a slot. A physical one reserves WAL from the last checkpoint on with `reserve`, else from its first use; a logical one
    /// from now on.
    ///
    /// # Errors
    ///
    /// There is one of that name, or (for a logical one, in PostgreSQL 15) the server is in recovery.
    pub fn create_slot(&mut self, name: &str, logical: bool, reserve: bool) -> Result<(), Refusal> {
        self.accepts()?;
        if logical && !self.primary() {
            return Err(Refusal::InRecovery);
        }
        let replayed = self.replay_position();
        let cluster = self.cluster_mut().ok_or(Refusal::NoCluster)?;
        if cluster.slots.contains_key(name) {
            return Err(Refusal::Other("replication slot already exists"));
        }
        let end = replayed.unwrap_or(cluster.log.inserted);
        let slot = Slot {
            kind: if logical {
                SlotKind::Logical { confirmed: end }
            } else {
                SlotKind::Physical
            },
            restart: if logical {
                Some(end)
            } else {
                reserve.then_some(cluster.control.redo)
            },
            xmin: logical.then_some(end),
            active: None,
            lost: false,
        };
        cluster.slots.insert(name.to_owned(), slot);
        Ok(())
    }

    /// Drops a slot.
    ///
    /// # Errors
    ///
    /// There is none of that name, or somebody uses it.
    pub fn drop_slot(&mut self, name: &str) -> Result<(), Refusal> {
        self.accepts()?;
        let cluster = self.cluster_mut().ok_or(Refusal::NoCluster)?;
        let slot = cluster
            .slots
            .get(name)
            .ok_or(Refusal::Other("replication slot does not exist"))?;
        if slot.active.is_some() {
            return Err(Refusal::Other("replication slot is active"));
        }
        cluster.slots.remove(name);
        Ok(())
    }

    /// `pg_replication_slot_advance`: a slot that nobody uses moves forward, at most to what is flushed (or replayed) here. Returns
    /// where it is then.
    ///
    /// # Errors
    ///
    /// There is none of that name, somebody uses it, it reserves nothing or has lost its WAL, or it would move back.
    pub fn advance_slot(&mut self, name: &str, to: u64) -> Result<u64, Refusal> {
        self.accepts()?;
        let replayed = self.replay_position();
        let cluster = self.cluster_mut().ok_or(Refusal::NoCluster)?;
        let end = replayed.unwrap_or(cluster.log.flushed);
        let slot = cluster
            .slots
            .get_mut(name)
            .ok_or(Refusal::Other("replication slot does not exist"))?;
        if slot.active.is_some() {
            return Err(Refusal::Other("replication slot is active"));
        }
        let Some(restart) = slot.holds() else {
            return Err(Refusal::Other("replication slot cannot be advanced"));
        };
        let to = to.min(end);
        let least = match slot.kind {
            SlotKind::Physical => restart,
            SlotKind::Logical { confirmed } => confirmed,
        };
        if to < least {
            return Err(Refusal::Other("cannot advance replication slot backwards"));
        }
        slot.restart = Some(to);
        if let SlotKind::Logical { confirmed } = &mut slot.kind {
            *confirmed = to;
            slot.xmin = Some(to);
        }
        Ok(to)
    }

    /// Bytes of WAL between the oldest segment that is kept and the end.
    #[must_use]
    pub fn wal_size(&self) -> u64 {
        self.cluster().map_or(0, |cluster| {
            cluster.log.inserted - segment_start(cluster.log.oldest)
        })
    }
}
