//! Commits: durable here, visible to readers, acknowledged to the client: three facts with three times.
//!
//! A commit is *durable* when its record is flushed here. Then its backend waits for the standbys that count at that moment. It becomes
//! *visible* when the wait ends, however it ends: covered, cancelled by its client, cut short by a stop; and after a crash everything durable
//! is visible. It is *acknowledged* when the client is told so. So a write that was never acknowledged may be visible and may be lost later,
//! which is PostgreSQL's way and not a fault of whoever manages it.
//!
//! Readers on the primary see transactions in the order in which their waits ended, readers on a standby in the order of the log: two readers
//! on two nodes can see two transactions in opposite orders (a long fork; every version does it). [`Server::sees`] tells what each sees.

use std::collections::VecDeque;

use super::server::{Effect, Happening, Process, Refusal, Server, Stage};
use super::settings::SyncLevel;
use super::sync::{Candidate, SyncNames};
use super::wal::{Kind, Point, SEGMENT, Txn, segment_start};
use crate::clock::Time;

/// A fact about a commit.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Fact {
    /// Its record is flushed on the primary.
    Durable,
    /// Readers of the primary see it.
    Visible,
    /// The client was told.
    Acked {
        /// As many standbys as `synchronous_standby_names` demanded have it; `false` also where none were demanded of this commit.
        covered: bool,
    },
    /// The client's connection ended without a word: it may have happened or not.
    Dropped,
}

/// A backend in the midst of a commit.
#[derive(Debug, Clone)]
pub(super) struct Pending {
    pub(super) txn: Txn,
    pub(super) point: Point,
    pub(super) level: SyncLevel,
    /// It is flushed, and waits for standbys.
    pub(super) waits: bool,
}

impl Server {
    /// A client commits a transaction that writes `bytes` of WAL. [`Happening::Commit`] facts follow.
    ///
    /// # Errors
    ///
    /// The server takes no writes; nothing was done.
    pub fn commit(&mut self, now: Time, txn: Txn, bytes: u64, level: SyncLevel) -> Result<Point, Refusal> {
        self.serves()?;
        self.insert(now, bytes, Kind::Commit(txn))?;
        let Some((cluster, process)) = self.parts() else {
            return Err(Refusal::NotRunning);
        };
        let point = cluster.log.point(cluster.log.inserted);
        if level == SyncLevel::Off {
            for fact in [Fact::Visible, Fact::Acked { covered: false }] {
                self.happened(Happening::Commit { txn, point, fact });
            }
        } else {
            process.pending.push_back(Pending {
                txn,
                point,
                level,
                waits: false,
            });
        }
        self.flush(now);
        Ok(point)
    }

    /// A client writes `bytes` of WAL without a commit.
    ///
    /// # Errors
    ///
    /// The server takes no writes.
    pub fn write(&mut self, now: Time, bytes: u64) -> Result<u64, Refusal> {
        self.serves()?;
        let end = self.insert(now, bytes, Kind::Other)?;
        self.flush(now);
        Ok(end)
    }

    /// `pg_switch_wal`: the next record begins a segment.
    ///
    /// # Errors
    ///
    /// The server takes no writes.
    pub fn switch_wal(&mut self, now: Time) -> Result<u64, Refusal> {
        let inserted = self.cluster().map_or(0, |cluster| cluster.log.inserted);
        let rest = segment_start(inserted) + SEGMENT - inserted;
        self.write(now, if rest == SEGMENT { super::wal::RECORD } else { rest })
    }

    /// A session that is open can go on: also one that has outlived its postmaster.
    ///
    /// # Errors
    ///
    /// It cannot, or hangs.
    pub fn serves(&self) -> Result<(), Refusal> {
        match &self.process {
            Some(process) if process.orphaned.is_some() && process.hung.is_none() => Ok(()),
            _ => self.accepts(),
        }
    }

    fn insert(&mut self, now: Time, bytes: u64, kind: Kind) -> Result<u64, Refusal> {
        let disk = self.disk;
        let Some((cluster, process)) = self.parts() else {
            return Err(Refusal::NotRunning);
        };
        if process.stage != Stage::Primary {
            return Err(Refusal::InRecovery);
        }
        let log = &mut cluster.log;
        let end = log.append(bytes, kind, now);
        let allocated = segment_start(log.flushed.saturating_sub(1)) + SEGMENT;
        if disk.gone || disk.broken || (disk.full && allocated < end) {
            self.crash(now, "could not write to the write-ahead log");
            return Err(Refusal::Disk);
        }
        Ok(end)
    }

    /// Flushes what is inserted (or received), now or when the disk has done it.
    pub(super) fn flush(&mut self, now: Time) {
        let spent = self.costs.fsync.draw(&mut self.rng) + self.disk.slow;
        let Some((cluster, process)) = self.parts() else {
            return;
        };
        if process.fsync.is_some() || cluster.log.flushed == cluster.log.inserted {
            return;
        }
        cluster.log.written = cluster.log.inserted;
        process.fsync = Some((now + spent, cluster.log.inserted));
        if spent == 0 {
            self.fsync_done(now);
        }
    }

    pub(super) fn fsync_done(&mut self, now: Time) {
        let broken = self.disk.broken || self.disk.gone;
        let Some((cluster, process)) = self.parts() else {
            return;
        };
        let Some((_, end)) = process.fsync.take() else {
            return;
        };
        if broken {
            self.crash(now, "could not fsync the write-ahead log");
            return;
        }
        let log = &mut cluster.log;
        log.flushed = log.flushed.max(end.min(log.inserted));
        if process.standby.is_some() {
            self.received(now);
        } else {
            self.flushed();
        }
        self.push(now);
        self.flush(now);
    }

    /// Commits up to here are durable: their backends begin to wait, or go on.
    fn flushed(&mut self) {
        let Some((cluster, process)) = self.parts() else {
            return;
        };
        let end = cluster.log.flushed;
        let mut durable = Vec::new();
        for pending in &mut process.pending {
            if !pending.waits && pending.point.end <= end {
                pending.waits = true;
                durable.push((pending.txn, pending.point));
            }
        }
        for (txn, point) in durable {
            let fact = Fact::Durable;
            self.happened(Happening::Commit { txn, point, fact });
        }
        self.release_uncovered();
    }

    /// Backends that need not wait for anybody go on.
    fn release_uncovered(&mut self) {
        let Some((_, process)) = self.parts() else { return };
        let alone = process.sync == SyncNames::None;
        let free = |pending: &Pending| pending.waits && (alone || pending.level <= SyncLevel::Local);
        self.release(free, false);
    }

    fn release(&mut self, free: impl Fn(&Pending) -> bool, covered: bool) {
        let Some(process) = &mut self.process else { return };
        if !process.pending.iter().any(&free) {
            return;
        }
        let mut rest = VecDeque::new();
        for pending in std::mem::take(&mut process.pending) {
            if free(&pending) {
                let (txn, point) = (pending.txn, pending.point);
                for fact in [Fact::Visible, Fact::Acked { covered }] {
                    self.effects
                        .push(Effect::Happened(Happening::Commit { txn, point, fact }));
                }
            } else {
                rest.push_back(pending);
            }
        }
        process.pending = rest;
    }

    /// A walsender has heard from its standby: it lets go whoever waited for that, by its own idea of the names.
    pub(super) fn release_waiters(&mut self, sender: usize) {
        let Some(process) = &self.process else { return };
        let sender = &process.senders[sender];
        if sender.priority == 0 || !sender.caught_up() || process.pending.is_empty() {
            return;
        }
        let Some([written, flushed, applied]) = sender.names.covered(&candidates(process)) else {
            return;
        };
        self.release(
            |pending| {
                let position = match pending.level {
                    SyncLevel::Off | SyncLevel::Local => return false,
                    SyncLevel::RemoteWrite => written,
                    SyncLevel::On => flushed,
                    SyncLevel::RemoteApply => applied,
                };
                pending.waits && pending.point.end <= position
            },
            true,
        );
    }

    /// The client cancels: its backend stops waiting and tells it so, with a warning. With `terminate` the connection ends instead.
    pub fn cancel(&mut self, txn: Txn, terminate: bool) {
        let Some(process) = &mut self.process else { return };
        let Some(index) = process
            .pending
            .iter()
            .position(|pending| pending.txn == txn && pending.waits)
        else {
            return;
        };
        let Some(pending) = process.pending.remove(index) else {
            return;
        };
        let told = if terminate {
            Fact::Dropped
        } else {
            Fact::Acked { covered: false }
        };
        for fact in [Fact::Visible, told] {
            self.happened(Happening::Commit {
                txn,
                point: pending.point,
                fact,
            });
        }
    }

    /// Rereads postgresql.conf: connection settings at once, `synchronous_standby_names` in each process in its own time. A value that
    /// cannot be parsed leaves the former one in effect.
    ///
    /// # Errors
    ///
    /// There is no postmaster to tell.
    pub fn reload(&mut self, now: Time) -> Result<(), Refusal> {
        let span = self.costs.reload;
        let spent = span.draw(&mut self.rng);
        let process = self.process.as_mut().ok_or(Refusal::NotRunning)?;
        let former = std::mem::replace(&mut process.settings, self.settings.clone());
        if former.synchronous_standby_names != process.settings.synchronous_standby_names {
            if SyncNames::parse(&process.settings.synchronous_standby_names).is_err() {
                process.settings.synchronous_standby_names = former.synchronous_standby_names;
            } else {
                process.sync_due = Some(now + spent);
                for sender in &mut process.senders {
                    sender.names_due = Some(now + span.draw(&mut self.rng));
                }
            }
        }
        let moved = former.primary_conninfo != process.settings.primary_conninfo
            || former.primary_slot_name != process.settings.primary_slot_name;
        if moved && process.standby.is_some() {
            self.close_receiver("the upstream was changed");
            self.seek_upstream(now);
        }
        self.advance(now);
        self.tick(now);
        Ok(())
    }

    /// Every process has reread its configuration. (To the agent that shows in part only.)
    #[must_use]
    pub fn names_in_force(&self) -> bool {
        let process = self.process.as_ref();
        process.is_none_or(|process| {
            let mut senders = process.senders.iter();
            process.sync_due.is_none() && senders.all(|sender| sender.names_due.is_none())
        })
    }

    /// By which rules a commit may be acknowledged now: by nobody's leave as long as backends do not wait, else by the names of any
    /// walsender that counts itself.
    #[must_use]
    pub fn acknowledges_by(&self) -> Vec<SyncNames> {
        let Some(process) = self
            .process
            .as_ref()
            .filter(|process| process.stage == Stage::Primary)
        else {
            return Vec::new();
        };
        if process.sync == SyncNames::None {
            return vec![SyncNames::None];
        }
        let mut rules: Vec<SyncNames> = Vec::new();
        for sender in process.senders.iter().filter(|sender| sender.priority != 0) {
            if !rules.contains(&sender.names) {
                rules.push(sender.names.clone());
            }
        }
        rules
    }

    pub(super) fn sync_tick(&mut self, now: Time) {
        let Some(process) = &mut self.process else { return };
        let due = |time: Option<Time>| time.is_some_and(|time| time <= now);
        let names = |process: &Process| SyncNames::parse(&process.settings.synchronous_standby_names);
        if due(process.sync_due) {
            process.sync_due = None;
            process.sync = names(process).unwrap_or_default();
            if process.stage == Stage::Primary {
                self.release_uncovered();
            }
        }
        let Some(process) = &mut self.process else { return };
        for index in 0..process.senders.len() {
            if due(process.senders[index].names_due) {
                let names = names(process).unwrap_or_default();
                let sender = &mut process.senders[index];
                sender.names_due = None;
                sender.take_names(names, process.standby.is_some());
            }
        }
    }

    /// A reader of this server sees the transaction whose commit is this point.
    #[must_use]
    pub fn sees(&self, point: Point) -> bool {
        let (Some(cluster), Some(process)) = (self.cluster(), &self.process) else {
            return false;
        };
        let end = process
            .standby
            .as_ref()
            .map_or(cluster.log.inserted, |standby| standby.replayed);
        let waits = process.pending.iter().any(|pending| pending.point == point);
        cluster.log.holds(point, end) && !waits
    }

    /// Its disk has the log up to this point.
    #[must_use]
    pub fn keeps(&self, point: Point) -> bool {
        self.cluster()
            .is_some_and(|cluster| cluster.log.holds(point, cluster.log.flushed))
    }

    /// The last transaction, in the order of the log, that a reader of this server sees and that `wanted` accepts.
    pub fn last_visible(&self, wanted: impl Fn(Txn) -> bool) -> Option<Txn> {
        let (cluster, process) = (self.cluster()?, self.process.as_ref()?);
        let end = process
            .standby
            .as_ref()
            .map_or(u64::MAX, |standby| standby.replayed);
        let records = cluster.log.records(0, end).iter().rev();
        let committed = records.filter_map(|record| match record.kind {
            Kind::Commit(txn) => Some(txn),
            _ => None,
        });
        let mut visible = committed.filter(|txn| process.pending.iter().all(|pending| pending.txn != *txn));
        visible.find(|txn| wanted(*txn))
    }

    /// The transactions that a reader of this server sees, in the order of the log.
    pub fn visible(&self) -> impl Iterator<Item = Txn> + '_ {
        let process = self.process.as_deref();
        let cluster = self.cluster().filter(|_| process.is_some());
        let end = process
            .and_then(|process| process.standby.as_ref())
            .map_or(u64::MAX, |standby| standby.replayed);
        cluster
            .map_or(&[][..], |cluster| cluster.log.records(0, end))
            .iter()
            .filter_map(|record| match record.kind {
                Kind::Commit(txn) => Some(txn),
                _ => None,
            })
            .filter(move |txn| {
                process.is_some_and(|process| process.pending.iter().all(|pending| pending.txn != *txn))
            })
    }
}

/// The walsenders as synchronous replication sees them.
pub(super) fn candidates(process: &Process) -> Vec<Candidate> {
    process
        .senders
        .iter()
        .map(|sender| Candidate {
            priority: sender.priority,
            streams: sender.caught_up() && sender.reported[1] != 0,
            reported: sender.reported,
        })
        .collect()
}
