//! Faults of PostgreSQL and its disk.

use surus_core::slots::slot_name;
use surus_scenarios::{Nanos, PostgresFault, PostgresStep, Taken, Target};

use super::{unable, void};
use crate::clock::Time;
use crate::fast::event::Event;
use crate::fast::world::World;
use crate::model::postgres::settings::Archiving;
use crate::record::{End, Seen};

/// A step of PostgreSQL that is to be slow or to fail.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Trouble {
    /// Which.
    pub step: PostgresStep,
    /// It takes so much longer; `None`: it fails.
    pub by: Option<Time>,
    /// So often yet; zero: until healed.
    pub count: u64,
}

/// What can be wrong with a server or its disk for a while.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mend {
    /// The disk is full.
    Full,
    /// The disk is slow.
    Slow,
    /// The disk gives errors.
    Broken,
    /// The data directory is not there.
    Gone,
    /// The walreceiver reads nothing.
    Stalled,
    /// Nobody is let in.
    Crowded,
    /// Something streams that is no member.
    Rogue,
    /// The archiver does not do its work.
    Archiver,
    /// Replay is slow.
    Replay,
}

impl Mend {
    /// Everything.
    pub const ALL: [Self; 9] = [
        Self::Full,
        Self::Slow,
        Self::Broken,
        Self::Gone,
        Self::Stalled,
        Self::Crowded,
        Self::Rogue,
        Self::Archiver,
        Self::Replay,
    ];
}

impl World {
    pub(super) fn postgres_fault(&mut self, fault: &PostgresFault) -> Taken {
        match fault {
            PostgresFault::KillPostgres { node } => {
                let Some(node) = self.member_at(node) else {
                    return void("nobody is meant by that now");
                };
                if !self.hosts[node].pg.alive() {
                    return void("PostgreSQL does not run");
                }
                self.kill_postgres(node, End::Killed);
            }
            PostgresFault::FreezePostgres { node, span } => {
                let Some(node) = self.member_at(node) else {
                    return void("nobody is meant by that now");
                };
                if !self.hosts[node].pg.alive() {
                    return void("PostgreSQL does not run");
                }
                self.hang_postgres(node);
                let epoch = self.hosts[node].pg.epoch();
                if *span != Nanos::FOREVER {
                    self.after(span.0, Event::PgThaw(node, epoch));
                }
                self.lasts(*span);
            }
            PostgresFault::Slow {
                node,
                step: PostgresStep::Archive,
                by,
                ..
            } => {
                let Some(node) = self.member_at(node) else {
                    return void("nobody is meant by that now");
                };
                self.archiving(node, Archiving::Hangs);
                self.mend_after(node, Mend::Archiver, *by);
            }
            PostgresFault::Fail {
                node,
                step: PostgresStep::Archive,
                ..
            } => {
                let Some(node) = self.member_at(node) else {
                    return void("nobody is meant by that now");
                };
                self.archiving(node, Archiving::Fails);
            }
            PostgresFault::Slow {
                node,
                step: PostgresStep::Replay,
                by,
                ..
            } => {
                let Some(node) = self.member_at(node) else {
                    return void("nobody is meant by that now");
                };
                self.hosts[node].pg.ills.replay = by.0;
            }
            PostgresFault::Slow {
                node,
                step,
                by,
                count,
            } => {
                let Some(node) = self.member_at(node) else {
                    return void("nobody is meant by that now");
                };
                self.hosts[node].troubles.push(Trouble {
                    step: *step,
                    by: Some(by.0),
                    count: *count,
                });
            }
            PostgresFault::Fail { node, step, count } => {
                let Some(node) = self.member_at(node) else {
                    return void("nobody is meant by that now");
                };
                self.hosts[node].troubles.push(Trouble {
                    step: *step,
                    by: None,
                    count: *count,
                });
            }
            other => return self.server_fault(other),
        }
        Taken::Done
    }

    fn server_fault(&mut self, fault: &PostgresFault) -> Taken {
        let Some(node) = target(fault).and_then(|node| self.member_at(node)) else {
            return void("nobody is meant by that now");
        };
        let now = self.now;
        let alive = self.hosts[node].pg.alive();
        let until = |span: &Nanos| now.saturating_add(span.0);
        let pg = &mut self.hosts[node].pg;
        match fault {
            PostgresFault::CrashBackend { .. } | PostgresFault::StickBackend { .. } if !alive => {
                return void("PostgreSQL does not run");
            }
            PostgresFault::CrashBackend { .. } => pg.crash_backend(now),
            PostgresFault::StickBackend { span, .. } => {
                pg.stick_backend(until(span));
                self.lasts(*span);
            }
            PostgresFault::DiskFull { span, .. } => {
                pg.disk.full = true;
                self.mend_after(node, Mend::Full, *span);
            }
            PostgresFault::DiskSlow { by, span, .. } => {
                pg.disk.slow = by.0;
                self.mend_after(node, Mend::Slow, *span);
            }
            PostgresFault::DiskError { span, .. } => {
                pg.disk.broken = true;
                self.mend_after(node, Mend::Broken, *span);
            }
            PostgresFault::DirGone { span, .. } if *span == Nanos::FOREVER => self.lose_directory(node),
            PostgresFault::DirGone { span, .. } => {
                pg.disk.gone = true;
                self.mend_after(node, Mend::Gone, *span);
            }
            PostgresFault::StallReceiver { span, .. } => {
                pg.ills.stalled = true;
                self.mend_after(node, Mend::Stalled, *span);
            }
            PostgresFault::RefuseConnections { span, .. } => {
                pg.ills.crowded = true;
                self.mend_after(node, Mend::Crowded, *span);
            }
            PostgresFault::RogueStandby { name, span, .. } => {
                pg.ills.rogues.insert(name.as_str().to_owned());
                self.mend_after(node, Mend::Rogue, *span);
            }
            PostgresFault::DropSlot { member, .. } => {
                let Some(member) = self.member_at(member) else {
                    return void("nobody is meant by that now");
                };
                let slot = slot_name(self.names[member].as_str()).into_owned();
                let pg = &mut self.hosts[node].pg;
                let slots = pg.cluster_mut().map(|cluster| &mut cluster.slots);
                if slots.and_then(|slots| slots.remove(&slot)).is_none() {
                    return void("there is no such slot");
                }
            }
            other => return unable(&format!("the model of PostgreSQL has no {}", other.word())),
        }
        self.follow_pg(node);
        Taken::Done
    }

    fn mend_after(&mut self, node: usize, mend: Mend, span: Nanos) {
        if span != Nanos::FOREVER {
            self.after(span.0, Event::PgMend(node, mend));
        }
        self.lasts(span);
    }

    /// Something that was wrong with a server is not any more.
    pub(crate) fn mend(&mut self, node: usize, mend: Mend) {
        let now = self.now;
        let pg = &mut self.hosts[node].pg;
        match mend {
            Mend::Full => pg.disk.full = false,
            Mend::Slow => pg.disk.slow = 0,
            Mend::Broken => pg.disk.broken = false,
            Mend::Gone => pg.disk.gone = false,
            Mend::Stalled => pg.unstall(now),
            Mend::Crowded => pg.ills.crowded = false,
            Mend::Rogue => pg.ills.rogues.clear(),
            Mend::Archiver if pg.settings.archiving != Archiving::Off => {
                self.archiving(node, Archiving::Works);
            }
            Mend::Archiver => {}
            Mend::Replay => pg.ills.replay = 0,
        }
        self.follow_pg(node);
    }

    fn archiving(&mut self, node: usize, how: Archiving) {
        let now = self.now;
        let pg = &mut self.hosts[node].pg;
        pg.settings.archiving = how;
        // One that does not run reads it at its start.
        let _ = pg.reload(now);
        self.follow_pg(node);
    }

    /// The data directory is lost with all that is in it; the server ends at its next write.
    fn lose_directory(&mut self, node: usize) {
        let own = self.standing(node);
        self.kill_postgres(node, End::Killed);
        self.hosts[node].pg.wipe();
        self.see(node, Seen::DataGone { own });
    }

    /// How much longer a step takes here now.
    pub(crate) fn slowed(&mut self, node: usize, step: PostgresStep) -> Time {
        self.trouble(node, step, false).flatten().unwrap_or(0)
    }

    /// A step fails here now.
    pub(crate) fn fails(&mut self, node: usize, step: PostgresStep) -> bool {
        self.trouble(node, step, true).is_some()
    }

    fn trouble(&mut self, node: usize, step: PostgresStep, fatal: bool) -> Option<Option<Time>> {
        let troubles = &mut self.hosts[node].troubles;
        let fits = |trouble: &Trouble| trouble.step == step && trouble.by.is_none() == fatal;
        let index = troubles.iter().position(fits)?;
        let by = troubles[index].by;
        match troubles[index].count {
            0 => {}
            1 => {
                troubles.remove(index);
            }
            _ => troubles[index].count -= 1,
        }
        Some(by)
    }
}

/// Whom a fault concerns.
fn target(fault: &PostgresFault) -> Option<&Target> {
    match fault {
        PostgresFault::CrashBackend { node }
        | PostgresFault::StickBackend { node, .. }
        | PostgresFault::DiskFull { node, .. }
        | PostgresFault::DiskSlow { node, .. }
        | PostgresFault::DiskError { node, .. }
        | PostgresFault::DirGone { node, .. }
        | PostgresFault::StallReceiver { node, .. }
        | PostgresFault::RefuseConnections { node, .. }
        | PostgresFault::RogueStandby { node, .. }
        | PostgresFault::DropSlot { node, .. }
        | PostgresFault::LoseHistory { node, .. } => Some(node),
        _ => None,
    }
}
