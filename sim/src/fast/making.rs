//! A new cluster in the making, as the agent's adapter makes it: initdb, a first start under the guard, the roles, a stop. Until that has ended a
//! mark beside the data directory says that it is nobody's yet.

use surus_core::input::Outcome;
use surus_core::types::{MonoTime, SystemId};
use surus_core::{Action, Order};

use crate::clock::MS;
use crate::fast::orders::{PG_CTL_TIMEOUT, TICK, failed};
use crate::fast::world::World;
use crate::model::postgres::{DataDir, StopMode};
use crate::record::{End, Seen};

/// What a stage comes to: nothing yet, or an end; or why what was begun is put away.
type Made = Result<Option<Outcome>, String>;

/// The stages after the directory has been begun.
const START: u8 = 1;
const OPEN: u8 = 2;
const ROLES: u8 = 3;
const STOP: u8 = 4;
const STOP_AT_ONCE: u8 = 5;

impl World {
    pub(crate) fn bootstrap_stage(&mut self, node: usize, action: &Action, stage: u8) -> Option<Outcome> {
        let Order::Bootstrap { guard_until, .. } = action.order else {
            return None;
        };
        let made = match stage {
            START => self.make_server(node, action, guard_until),
            OPEN => self.await_server(node, action),
            ROLES => self.end_server(node, action),
            STOP | STOP_AT_ONCE => self.end_making(node, action, stage, guard_until),
            _ => Ok(self.begin_making(node, action)),
        };
        made.unwrap_or_else(|text| {
            self.give_up(node);
            failed(&text)
        })
    }

    fn begin_making(&mut self, node: usize, action: &Action) -> Option<Outcome> {
        let host = &mut self.hosts[node];
        if host.pg.alive() {
            return failed("PostgreSQL runs");
        }
        if host.making {
            // What an earlier agent did not finish is moved aside.
            host.pg.wipe();
        }
        if host.pg.dir != DataDir::Empty {
            return failed("the data directory is not empty");
        }
        host.making = true;
        host.waits = None;
        host.pg.initdb_begin();
        let slow = std::mem::take(&mut host.pg.sluggish);
        let delay = self.rng.range(300 * MS, 1500 * MS) + slow;
        self.next_stage(node, action.clone(), START, delay);
        None
    }

    fn make_server(&mut self, node: usize, action: &Action, guard_until: MonoTime) -> Made {
        self.counter += 1;
        let system_id = SystemId(self.counter);
        let made = self.hosts[node].pg.initdb(system_id);
        made.map_err(|refusal| format!("initdb: {refusal:?}"))?;
        self.see(node, Seen::Bootstrapped { system_id });
        let until = self.extended(node, action, guard_until);
        if until <= self.local(node) {
            return Err("initdb took longer than the right lasted".to_owned());
        }
        if !self.arm(node, action, until) {
            return Err("the guard has heard of a younger reign".to_owned());
        }
        self.set_gate(node, false);
        if let Some(outcome) = self.start_postgres(node) {
            return Err(format!("{outcome:?}"));
        }
        self.hosts[node].waits = Some(self.now);
        self.next_stage(node, action.clone(), OPEN, TICK);
        Ok(None)
    }

    /// Waits until the server accepts writes; then roles are made.
    fn await_server(&mut self, node: usize, action: &Action) -> Made {
        let host = &mut self.hosts[node];
        if !host.pg.alive() {
            return Err("the new server ended".to_owned());
        }
        let (next, delay) = if host.pg.writable() {
            host.waits = None;
            (ROLES, self.rng.range(20 * MS, 300 * MS))
        } else if *host.waits.get_or_insert(self.now) + PG_CTL_TIMEOUT <= self.now {
            return Err("the new server accepts no writes".to_owned());
        } else {
            (OPEN, TICK)
        };
        self.next_stage(node, action.clone(), next, delay);
        Ok(None)
    }

    /// The roles are made, if the server has lived to answer that.
    fn end_server(&mut self, node: usize, action: &Action) -> Made {
        let pg = &self.hosts[node].pg;
        if !pg.alive() {
            return Err("the new server ended before its roles were made".to_owned());
        }
        let next = if pg.answers() {
            self.stop_postgres(node, StopMode::Fast);
            STOP
        } else {
            ROLES
        };
        self.next_stage(node, action.clone(), next, TICK);
        Ok(None)
    }

    fn end_making(&mut self, node: usize, action: &Action, stage: u8, guard_until: MonoTime) -> Made {
        let until = self.extended(node, action, guard_until);
        let turned = until <= self.local(node);
        let host = &mut self.hosts[node];
        let Some(cluster) = host.pg.cluster() else {
            return Err("the new cluster is gone".to_owned());
        };
        if !host.pg.alive() || cluster.control.clean() {
            let system_id = cluster.control.system_id;
            host.making = false;
            host.waits = None;
            return Ok(Some(Outcome::Bootstrapped { system_id }));
        }
        let begun = stage == STOP_AT_ONCE;
        let next = if begun || turned {
            self.stop_at_once(node, begun);
            STOP_AT_ONCE
        } else {
            STOP
        };
        self.next_stage(node, action.clone(), next, TICK);
        Ok(None)
    }

    /// What was begun is moved aside.
    fn give_up(&mut self, node: usize) {
        self.kill_postgres(node, End::ImmediateStop);
        let host = &mut self.hosts[node];
        host.pg.wipe();
        host.making = false;
        host.waits = None;
    }
}
