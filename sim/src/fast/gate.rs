//! The gate of a new primary: clients are let in once standbys have what it shows. As the adapter keeps it, and as the record learns of it.

use surus_core::input::Outcome;

use crate::fast::world::World;
use crate::record::Seen;

impl World {
    /// The server's rules are what a reign begins with: members alone, whoever else is there being sent away, or everybody.
    pub(crate) fn set_gate(&mut self, node: usize, shut: bool) {
        let host = &mut self.hosts[node];
        let was = host.gate.take();
        let log = host.pg.cluster().map(|cluster| &cluster.log);
        host.gate = log.filter(|_| shut).map(|log| log.point(log.inserted));
        if shut {
            self.cut_sessions(node);
            self.see(node, Seen::GateShut);
        } else if was.is_some() {
            self.see(node, Seen::GateLifted);
        }
    }

    /// The order to let clients in.
    pub(crate) fn open_gate(&mut self, node: usize) -> Outcome {
        let pg = &self.hosts[node].pg;
        if !pg.answers() || !pg.primary() {
            return Outcome::Failed("PostgreSQL is no primary that answers".to_owned());
        }
        if let Some(shown) = self.hosts[node].gate.take() {
            let others = (0..self.hosts.len()).filter(|other| *other != node);
            let having = others
                .filter(|other| self.hosts[*other].pg.keeps(shown))
                .collect();
            self.see(node, Seen::GateOpened { having });
        }
        Outcome::Ok
    }
}
