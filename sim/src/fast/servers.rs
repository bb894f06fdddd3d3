//! What PostgreSQL and the guards do by themselves: the models are called when they want to be, and what comes of it is carried on and
//! told.

use surus_core::input::Input;
use surus_core::types::{Lsn, Timeline};

use crate::clock::{SEC, Time};
use crate::fast::clients::Reply;
use crate::fast::event::Event;
use crate::fast::world::World;
use crate::model::postgres::{Effect, Ended, Fact, Happening, Point, Refused, StopMode, Txn};
use crate::record::{End, Rebuild, Seen, Standing};
use crate::zoo::Bug;

impl World {
    /// What came of the last call on a node's server: messages set out, facts are told, the next call is arranged.
    pub(crate) fn follow_pg(&mut self, node: usize) {
        self.follow_killed(node, End::Killed);
    }

    fn follow_killed(&mut self, node: usize, killed: End) {
        if self.hosts[node].pg.has_effects() {
            let mut effects = std::mem::take(&mut self.effects);
            self.hosts[node].pg.swap_effects(&mut effects);
            for effect in effects.drain(..) {
                match effect {
                    Effect::Send { to, link, message } => self.carry(node, to.0 as usize, link, message),
                    Effect::Happened(what) => self.pg_happened(node, what, killed),
                }
            }
            self.effects = effects;
        }
        self.tell_acknowledging(node);
        let cause = self.record.cause();
        let host = &mut self.hosts[node];
        let due = host.pg.next_deadline().unwrap_or(Time::MAX).max(self.now + 1);
        if due != host.ticking.0 {
            host.ticking = (due, cause);
        }
    }

    /// The server that wants to be called first, and when: that changes with every call and message, so it does not wait in the queue.
    pub(crate) fn next_tick(&self) -> Option<(usize, Time)> {
        let ticks = self.hosts.iter().map(|host| host.ticking.0).enumerate();
        ticks.min_by_key(|(_, time)| *time)
    }

    /// A server wanted to be called now.
    pub(crate) fn pg_tick(&mut self, node: usize) {
        self.hosts[node].pg.tick(self.now);
        self.follow_pg(node);
    }

    fn pg_happened(&mut self, node: usize, what: Happening, killed: End) {
        match what {
            Happening::Ready { primary } => {
                if primary {
                    self.unpark(node);
                }
                if let Some(standing) = self.standing(node) {
                    self.see(node, Seen::Up { primary, standing });
                }
            }
            Happening::Forked { from, at, .. } => {
                if let Some(standing) = self.standing(node) {
                    let (from, switch) = (Timeline(from), Lsn(at));
                    let seen = Seen::Forked {
                        from,
                        switch,
                        standing,
                    };
                    self.see(node, seen);
                }
            }
            Happening::Promoted { from, at, .. } => {
                if let Some(standing) = self.standing(node) {
                    self.unpark(node);
                    let (from, switch) = (Timeline(from), Lsn(at));
                    let seen = Seen::Promoted {
                        from,
                        switch,
                        standing,
                    };
                    self.see(node, seen);
                    if self.record.checker.scene().by_hand(node) {
                        // Somebody tries it out. Only the disk could refuse, and it has just written.
                        let bytes = self.rng.below(1 << 16);
                        let _ = self.hosts[node].pg.write(self.now, bytes);
                    }
                }
            }
            Happening::Checkpoint => self.tell_checkpoint(node),
            Happening::Crashed(_) => {
                let standing = self.standing(node);
                self.see(
                    node,
                    Seen::Ended {
                        how: End::Killed,
                        standing,
                    },
                );
                self.cut_sessions(node);
                self.tell_starting(node);
            }
            Happening::Exited(how) => {
                let how = match how {
                    Ended::Fast => End::FastStop,
                    Ended::Immediate => End::ImmediateStop,
                    Ended::Killed => killed,
                    Ended::Failed(_) => End::Killed,
                    Ended::PowerLoss => End::PowerLoss,
                };
                self.pg_exited(node, how);
            }
            Happening::Commit { txn, point, fact } => self.committed(node, txn, point, fact),
            Happening::Streaming(upstream) => {
                self.hosts[node].rivalry.streamed = Some(self.now);
                if let Some(standing) = self.standing(node) {
                    let upstream = upstream.0 as usize;
                    self.see(node, Seen::Streaming { upstream, standing });
                }
            }
            Happening::Disconnected(why) => {
                if why == Refused::Removed.text() {
                    self.see(node, Seen::WalMissing);
                }
                self.see(node, Seen::StreamLost { why });
            }
            Happening::SlotLost(_) => {}
        }
    }

    /// A commit came one step further.
    fn committed(&mut self, node: usize, txn: Txn, point: Point, fact: Fact) {
        if !matches!(fact, Fact::Acked { .. } | Fact::Dropped) {
            return;
        }
        let waiting = self.hosts[node].commits.remove(&txn);
        if let Fact::Acked { .. } = fact
            && let Some(cluster) = self.hosts[node].pg.cluster()
        {
            let standing = Standing {
                system_id: cluster.control.system_id,
                timeline: Timeline(point.run.timeline),
                position: point.lsn(),
            };
            let (key, value) = (crate::fast::clients::key_of(txn), txn);
            self.see(node, Seen::Committed { key, value, standing });
        }
        if let Some((client, id)) = waiting {
            let reply = match fact {
                Fact::Acked { .. } => Reply::Done(None),
                _ => Reply::Reset,
            };
            self.client_reply(client, id, node, reply);
        }
    }

    pub(crate) fn tell_starting(&mut self, node: usize) {
        let signal = self.hosts[node]
            .pg
            .cluster()
            .is_some_and(|cluster| cluster.standby_signal);
        if let Some(standing) = self.standing(node) {
            let as_primary = !signal;
            self.see(node, Seen::Starting { as_primary, standing });
        }
    }

    /// The server of a node is gone; its guard says so.
    pub(crate) fn pg_exited(&mut self, node: usize, how: End) {
        let standing = self.standing(node);
        self.see(node, Seen::Ended { how, standing });
        self.cut_sessions(node);
        let input = if self.hosts[node].guard.is_some() {
            Input::PostgresExited
        } else {
            Input::GuardLost
        };
        self.hear(node, input);
    }

    /// What is in a node's data directory, if that is complete.
    #[must_use]
    pub fn standing(&self, node: usize) -> Option<Standing> {
        self.hosts[node].pg.cluster().map(|cluster| Standing {
            system_id: cluster.control.system_id,
            timeline: Timeline(cluster.log.timeline()),
            position: Lsn(cluster.log.inserted),
        })
    }

    /// From where on no other member's disk has this node's WAL.
    pub(crate) fn alone(&self, node: usize) -> Option<Lsn> {
        let own = self.hosts[node].pg.cluster()?;
        let others = (0..self.hosts.len()).filter(|other| *other != node);
        let shared = others
            .filter_map(|other| self.hosts[other].pg.cluster())
            .filter(|other| other.control.system_id == own.control.system_id)
            .map(|other| own.log.common(&other.log))
            .max()
            .unwrap_or(0);
        (shared < own.log.inserted).then_some(Lsn(shared))
    }

    /// A data directory is about to be given up for another's.
    pub(crate) fn tell_discard(&mut self, node: usize, source: Option<usize>, how: Rebuild) {
        let theirs = source.and_then(|source| self.standing(source));
        self.hosts[node].rivalry.discarded = Some(self.now);
        if let Some(own) = self.standing(node) {
            let alone = self.alone(node);
            let seen = Seen::Discarded {
                how,
                source,
                own,
                theirs,
                alone,
            };
            self.see(node, seen);
        }
    }

    /// The control file shows a checkpoint.
    pub(crate) fn tell_checkpoint(&mut self, node: usize) {
        if let Some(cluster) = self.hosts[node].pg.cluster() {
            let (timeline, position) = (
                Timeline(cluster.control.timeline),
                Lsn(cluster.control.checkpoint),
            );
            self.see(node, Seen::Checkpointed { timeline, position });
        }
    }

    /// Kills the server of a node.
    pub(crate) fn kill_postgres(&mut self, node: usize, how: End) {
        self.hosts[node].pg.kill(self.now);
        self.follow_killed(node, how);
    }

    /// The host's power is gone, and with it what was not flushed.
    pub(crate) fn power_off_postgres(&mut self, node: usize) {
        let before = self.standing(node);
        self.hosts[node].pg.power_off();
        self.hosts[node].commits.clear();
        self.wires_down(node);
        self.follow_pg(node);
        if let (Some(before), Some(standing)) = (before, self.standing(node))
            && standing.position < before.position
        {
            let reached = before.position;
            self.see(node, Seen::WalLost { standing, reached });
        }
    }

    /// A server is stopped by SIGSTOP.
    pub(crate) fn hang_postgres(&mut self, node: usize) {
        let pg = &mut self.hosts[node].pg;
        if pg.alive() && !pg.hung() {
            pg.hang();
            self.see(node, Seen::Hung { hung: true });
        }
    }

    /// A server that was stopped goes on.
    pub(crate) fn pg_thaw(&mut self, node: usize, server: u64) {
        let pg = &mut self.hosts[node].pg;
        if pg.epoch() == server && pg.hung() {
            self.see(node, Seen::Hung { hung: false });
            self.hosts[node].pg.thaw(self.now);
            self.follow_pg(node);
            self.serve_waiting(node);
            self.unpark(node);
        }
    }

    /// A fast stop that was said to be over begins: a planted bug.
    pub(crate) fn pg_stop_late(&mut self, node: usize, server: u64) {
        if self.hosts[node].pg.epoch() == server {
            let _ = self.hosts[node].pg.stop(self.now, StopMode::Fast);
            self.follow_pg(node);
        }
    }

    /// The guard's deadline has passed.
    pub(crate) fn guard_due(&mut self, node: usize, version: u64) {
        let frozen = self.hosts[node].guard_frozen;
        if self.now < frozen {
            self.after(frozen - self.now + 1, Event::GuardDue(node, version));
            return;
        }
        let due = self.hosts[node]
            .guard
            .as_ref()
            .is_some_and(|guard| guard.version == version && guard.deadline.is_some());
        if !due {
            return;
        }
        let late = match self.bug {
            Some(Bug::GuardAsleep) => return,
            Some(Bug::GuardSlow) => 2 * SEC,
            Some(Bug::GuardClockStops) => std::mem::take(&mut self.hosts[node].slept),
            _ => 0,
        };
        if late == 0 || self.hosts[node].overdue == version {
            self.kill_postgres(node, End::ByGuard);
        } else {
            self.hosts[node].overdue = version;
            self.after(late, Event::GuardDue(node, version));
        }
    }
}
