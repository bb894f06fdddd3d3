//! Faults of PostgreSQL and its disk.

use surus_scenarios::{Nanos, PostgresFault, PostgresStep, Taken};

use super::{unable, void};
use crate::clock::Time;
use crate::fast::event::Event;
use crate::fast::world::World;
use crate::record::End;

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
            other => return unable(&format!("the model of PostgreSQL has no {}", other.word())),
        }
        Taken::Done
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
