//! What a node believes, and why it is where it is: for `GET /explain` and `surus explain`.

use std::fmt;

use crate::config::Config;
use crate::decision::{Decision, Guard};
use crate::facts::Facts;
use crate::state::State;
use crate::types::MonoTime;
use crate::view::{DataDir, Process, Server, ServerRole};

/// A borrowed look into the node.
#[derive(Debug)]
pub struct Explanation<'a> {
    /// The settings obeyed.
    pub config: &'a Config,
    /// What is known.
    pub facts: &'a Facts,
    /// What was decided and is not finished.
    pub state: &'a State,
    /// The last decision.
    pub decision: Option<&'a Decision>,
    /// Whether this node could take the lock if it were free, by all that does not depend on others.
    pub could_take_lock: Result<&'a Server, Guard>,
    /// The time of the last step.
    pub now: MonoTime,
}

impl Explanation<'_> {
    /// The right to be primary ends here; zero if there is none.
    #[must_use]
    pub fn right_until(&self) -> MonoTime {
        let lease = &self.state.lease;
        if lease.held || lease.by_failsafe {
            lease.until
        } else {
            MonoTime::ZERO
        }
    }

    /// Its primary may run without a right in time: the cluster is paused, and `status` says so.
    #[must_use]
    pub fn exempt(&self) -> bool {
        self.state.exempt(self.config)
    }
}

impl fmt::Display for Explanation<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            config,
            facts,
            state,
            decision,
            could_take_lock,
            now,
        } = self;
        let age = |at: MonoTime| now.since(at).as_millis() as f64 / 1000.0;
        if let Some(decision) = decision {
            writeln!(f, "{}: {}", config.name, decision.rule.text())?;
            writeln!(f, "  rule      {} {}", decision.rule.code(), decision.rule.name())?;
            for evidence in &decision.because {
                writeln!(f, "  because   {evidence}")?;
            }
            for (rule, guard) in &decision.blocked {
                writeln!(f, "  not       {} ({}): {guard}", rule.name(), rule.code())?;
            }
        }
        match facts.leader() {
            Some(leader) => writeln!(f, "  leader    {leader}")?,
            None if facts.cluster.is_none() => {
                writeln!(f, "  leader    not known: etcd has not answered yet")?
            }
            None => {
                let since = facts.leaderless.map_or(0.0, age);
                writeln!(f, "  leader    none for {since:.1} s")?;
            }
        }
        if state.lease.valid(*now) && (state.lease.held || state.lease.by_failsafe) {
            let left = state.lease.left(*now).as_millis() as f64 / 1000.0;
            let by = if state.lease.by_failsafe {
                "failsafe grants"
            } else {
                "the lock"
            };
            writeln!(f, "  right     {left:.1} s left, by {by}")?;
        }
        match could_take_lock {
            Ok(_) => writeln!(f, "  candidate yes")?,
            Err(guard) => writeln!(f, "  candidate no: {guard}")?,
        }
        if let Some(seen) = &facts.postgres {
            let process = match &seen.value.process {
                Process::Absent => "not running".to_owned(),
                Process::Starting { .. } => "starting".to_owned(),
                Process::Unresponsive { .. } => "does not answer".to_owned(),
                Process::Running(server) => {
                    let role = match server.role {
                        ServerRole::Primary { .. } => "primary",
                        ServerRole::Replica { streaming: true, .. } => "replica, streaming",
                        ServerRole::Replica { streaming: false, .. } => "replica, not streaming",
                    };
                    format!("{role}, at {} on timeline {}", server.position(), server.timeline)
                }
            };
            writeln!(f, "  postgres  {process} (seen {:.1} s ago)", age(seen.at))?;
            match &seen.value.data {
                DataDir::Present(_) => {}
                DataDir::Empty => writeln!(f, "  data      empty")?,
                DataDir::Incomplete(text) | DataDir::Unusable(text) => writeln!(f, "  data      {text}")?,
            }
        }
        if let Some(read) = facts.read {
            writeln!(f, "  etcd      answered {:.1} s ago", age(read))?;
        }
        if let Some(failure) = &state.failure {
            writeln!(
                f,
                "  failed    {} ({} times): {}",
                crate::rules::describe(&failure.order),
                failure.count,
                failure.text
            )?;
        }
        for (name, peer) in &facts.peers {
            let said = match &peer.status {
                None => "no answer".to_owned(),
                Some(status) => {
                    let role = if status.primary { "primary" } else { "replica" };
                    let position = status
                        .position
                        .map_or_else(|| "?".to_owned(), |lsn| lsn.to_string());
                    format!("{role} at {position}")
                }
            };
            writeln!(
                f,
                "  peer      {name}: {said} (asked {:.1} s ago)",
                age(peer.asked)
            )?;
        }
        Ok(())
    }
}
