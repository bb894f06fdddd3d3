//! Faults of PostgreSQL and its disk.

use surus_scenarios::{Nanos, PostgresFault, PostgresStep, Taken, Target};

use super::super::host::Inside;
use super::super::world::World;
use super::{nobody, unable, void};
use crate::clock::Time;

impl World {
    pub(super) fn postgres_fault(&mut self, fault: &PostgresFault) -> Taken {
        match fault {
            PostgresFault::KillPostgres { node } => {
                let Some(host) = self.member_at(node) else {
                    return nobody();
                };
                if !self.kill_postgres(host) {
                    return void("PostgreSQL does not run");
                }
                Taken::Done
            }
            PostgresFault::FreezePostgres { node, span } => {
                let Some(host) = self.member_at(node) else {
                    return nobody();
                };
                self.freeze_postgres(host, *span)
            }
            PostgresFault::CrashBackend { node } => {
                self.inside(node, |now, inside| inside.server.crash_backend(now))
            }
            PostgresFault::StickBackend { node, span } => {
                let span = span.0;
                self.inside(node, move |now, inside| {
                    inside.server.stick_backend(now.saturating_add(span));
                })
            }
            PostgresFault::Slow { node, step, by, .. } => {
                let tools = [PostgresStep::Rewind, PostgresStep::BaseBackup];
                if !tools.contains(step) {
                    return unable("only tools can be slowed one by one");
                }
                let by = by.0;
                self.inside(node, move |_, inside| inside.sluggish = by)
            }
            PostgresFault::DiskFull { node, span } => {
                self.while_lasting(node, *span, |_, inside, on| inside.server.disk.full = on)
            }
            PostgresFault::DiskError { node, span } => {
                self.while_lasting(node, *span, |_, inside, on| inside.server.disk.broken = on)
            }
            PostgresFault::DirGone { node, span } => {
                self.while_lasting(node, *span, |_, inside, on| inside.server.disk.gone = on)
            }
            PostgresFault::DiskSlow { node, by, span } => {
                let by = by.0;
                self.while_lasting(node, *span, move |_, inside, on| {
                    inside.server.disk.slow = if on { by } else { 0 };
                })
            }
            PostgresFault::RefuseConnections { node, span } => {
                self.while_lasting(node, *span, |_, inside, on| inside.refusing = on)
            }
            PostgresFault::StallReceiver { node, span } => {
                self.while_lasting(node, *span, |now, inside, on| {
                    if on {
                        inside.server.ills.stalled = true;
                    } else {
                        inside.server.unstall(now);
                    }
                })
            }
            PostgresFault::RogueStandby { node, name, span } => {
                let name = name.as_str().to_owned();
                self.while_lasting(node, *span, move |_, inside, on| {
                    let rogues = &mut inside.server.ills.rogues;
                    if on {
                        rogues.insert(name.clone());
                    } else {
                        rogues.remove(&name);
                    }
                })
            }
            other => unable(&format!("not done to the served PostgreSQL: {}", other.word())),
        }
    }

    fn inside(&mut self, node: &Target, what: impl FnOnce(Time, &mut Inside)) -> Taken {
        let Some(host) = self.member_at(node) else {
            return nobody();
        };
        self.hub.act(host, what);
        Taken::Done
    }

    fn while_lasting(
        &mut self,
        node: &Target,
        span: Nanos,
        set: impl Fn(Time, &mut Inside, bool) + 'static,
    ) -> Taken {
        let Some(host) = self.member_at(node) else {
            return nobody();
        };
        self.hub.act(host, |now, inside| set(now, inside, true));
        self.lasts(span, move |world| {
            world.hub.act(host, |now, inside| set(now, inside, false));
        });
        Taken::Done
    }
}
