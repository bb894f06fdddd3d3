//! Where everybody stands, for a person who looks.

use super::world::World;

impl World {
    /// A line for each member: what its PostgreSQL is and how far, what its agent decided last.
    #[must_use]
    pub fn roster(&self) -> Vec<String> {
        let width = self.names.iter().map(|name| name.as_str().len()).max();
        let members = 0..self.hosts.len();
        members
            .map(|node| {
                let name = self.names[node].as_str();
                let place = self.standing(node).map_or_else(
                    || "no data".to_owned(),
                    |own| format!("timeline {} at {}", own.timeline.0, own.position),
                );
                format!(
                    "{name:<width$}  {:<8} {:<3} {place:<26} {}",
                    self.server_is(node),
                    self.holds_lock(node),
                    self.agent_says(node),
                    width = width.unwrap_or(0)
                )
            })
            .collect()
    }

    fn server_is(&self, node: usize) -> &'static str {
        let host = &self.hosts[node];
        let pg = &host.pg;
        match () {
            () if !host.powered => "no power",
            () if self.now < host.still => "still",
            () if pg.hung() => "frozen",
            () if pg.stopping() => "stopping",
            () if pg.writable() => "primary",
            () if pg.answers() && pg.standby() => "replica",
            () if pg.alive() => "starting",
            () => "down",
        }
    }

    fn holds_lock(&self, node: usize) -> &'static str {
        if self.record.checker.scene().leads(node) {
            "key"
        } else {
            ""
        }
    }

    fn agent_says(&self, node: usize) -> String {
        let host = &self.hosts[node];
        let Some(agent) = &host.agent else {
            return "no agent".to_owned();
        };
        if self.now < host.frozen {
            return "the agent is frozen".to_owned();
        }
        let decision = agent.core.explain().decision;
        decision.map_or_else(String::new, ToString::to_string)
    }
}
