//! Cloning from another member.
//!
//! Whatever was in the data directory is moved aside first. Only the remains of an earlier clone that did not finish are deleted:
//! the marker says that nothing else was ever in there.

use surus_core::action::Upstream;
use surus_core::input::Outcome;

use super::conf::{Acknowledgers, Gating};
use super::error::report;
use super::site::{Operation, Role};
use super::{Error, Postgres};

/// For connections that carry much: a source that vanishes without a word is given up after half a minute.
pub(super) const PATIENCE: [(&str, &str); 4] = [
    ("connect_timeout", "5"),
    ("keepalives_idle", "10"),
    ("keepalives_interval", "5"),
    ("keepalives_count", "4"),
];

impl Postgres {
    /// Clones from a member with the first of `create_replica_methods` that works. Whatever was there is moved aside.
    pub async fn base_backup(&self, from: &Upstream) -> Outcome {
        let result = self.clone_from(from).await;
        self.progress.set(None);
        report("base backup", result, |()| Outcome::Ok)
    }

    async fn clone_from(&self, from: &Upstream) -> Result<(), Error> {
        let settings = self.settings();
        self.site.clear_strays().await?;
        if let Some(file) = self.site.look().await.postmaster() {
            return Err(Error::Condition(format!(
                "the server (process {}) runs; it must be stopped before a base backup",
                file.pid
            )));
        }
        self.heartbeat.set(None);
        let recovery = self.recovery(Some(from)).await?;
        let methods = if settings.create_replica_methods.is_empty() {
            vec!["basebackup".to_owned()]
        } else {
            settings.create_replica_methods.clone()
        };
        let mut problems = Vec::new();
        for name in &methods {
            let custom = settings.replica_methods.get(name);
            if custom.is_none() && name != "basebackup" {
                problems.push(format!(
                    "{name}: postgresql.create_replica_methods names it, and there is no section postgresql.{name}"
                ));
                continue;
            }
            let operation = Operation::Clone {
                keep_data: custom.is_some_and(|method| method.keep_data),
            };
            self.site.begin(operation).await?;
            let progress = |progress| self.progress.set(Some(progress));
            match self.site.copy_from(from, custom, &progress).await {
                Ok(()) => {
                    tracing::info!(method = name, from = %from.name, "cloned");
                    let role = Role::Replica(recovery);
                    self.configure(
                        &role,
                        &[],
                        None,
                        Acknowledgers::ForReplica,
                        Gating::Begins { shut: false },
                    )
                    .await?;
                    {
                        let mut memory = self.memory();
                        memory.received = None;
                        memory.history = None;
                        memory.control = None;
                        memory.primary = Some(false);
                    }
                    return self.site.finish(operation).await;
                }
                Err(error) => {
                    tracing::warn!(method = name, from = %from.name, error = %error.chain(), "clone failed");
                    problems.push(format!("{name}: {}", error.chain()));
                }
            }
        }
        // What the failed attempts left is worth nothing, unless a method of the user's keeps its data for the next try.
        self.site.abandon(Operation::Clone { keep_data: false }).await?;
        Err(Error::Condition(format!(
            "no clone from {}: {}",
            from.name,
            problems.join("; ")
        )))
    }
}
