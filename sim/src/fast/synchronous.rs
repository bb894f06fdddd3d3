//! `synchronous_standby_names`: as the agent's adapter sets it, and what the record learns of who acknowledges.

use surus_core::Action;
use surus_core::input::Outcome;
use surus_core::sync::Names;
use surus_scenarios::SyncMode;

use crate::clock::{MS, Time};
use crate::fast::world::World;
use crate::model::postgres::sync::SyncNames;
use crate::record::Seen;
use crate::zoo::Bug;

/// The adapter looks this often whether every process has the setting.
const TICK: Time = 20 * MS;

/// It waits for so many looks at least: a walsender whose priority stays the same does not show that it has reread.
const LOOKS: u8 = 10;

/// After so many it gives up.
const PATIENCE: u8 = 100;

impl World {
    /// Writes the setting into the server's configuration; says whether it is another than before.
    pub(crate) fn name_standbys(&mut self, node: usize, names: Option<&Names>) -> bool {
        let host = &mut self.hosts[node];
        let text = names.map_or_else(String::new, Names::to_string);
        host.managed = names.is_some();
        let changed = host.pg.settings.synchronous_standby_names != text;
        host.pg.settings.synchronous_standby_names = text;
        changed
    }

    /// A stage of the order to set the names.
    pub(crate) fn synchronous_stage(
        &mut self,
        node: usize,
        action: &Action,
        names: Option<&Names>,
        stage: u8,
    ) -> Option<Outcome> {
        let pg = &self.hosts[node].pg;
        if !pg.answers() || !pg.primary() {
            let text = "PostgreSQL is no primary that answers".to_owned();
            return Some(if stage == 0 {
                Outcome::Failed(text)
            } else {
                Outcome::Unknown(text)
            });
        }
        if stage == 0 {
            self.name_standbys(node, names);
            let _ = self.hosts[node].pg.reload(self.now);
            self.follow_pg(node);
        }
        let hasty = self.bug == Some(Bug::NamesSaidTooSoon);
        let in_force = self.hosts[node].pg.names_in_force() && LOOKS <= stage;
        if in_force || hasty {
            return Some(Outcome::Ok);
        }
        if PATIENCE <= stage {
            return Some(Outcome::Unknown(
                "not every process has reread its configuration".to_owned(),
            ));
        }
        self.next_stage(node, action.clone(), stage + 1, TICK);
        None
    }

    /// The record learns by whom commits may be acknowledged, if that has changed.
    pub(crate) fn tell_acknowledging(&mut self, node: usize) {
        if self.shape.settings.synchronous_mode == SyncMode::Off {
            return;
        }
        let rules = self.hosts[node].pg.acknowledges_by();
        if rules == self.hosts[node].acknowledging {
            return;
        }
        let member = |name: &str| self.names.iter().position(|known| known.as_str() == name);
        let told = SyncNames::told(&rules, member);
        self.hosts[node].acknowledging = rules;
        self.see(node, Seen::SyncStandbys { rules: told });
    }
}
