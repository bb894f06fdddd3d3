//! pg_rewind: bringing a diverged data directory onto the leader's history.
//!
//! What this node alone holds, its WAL from the fork on, is copied to `<data_dir>.diverged-<time>` before anything is touched.

use std::time::Duration;

use surus_core::action::Upstream;
use surus_core::input::Outcome;

use super::conf::{Acknowledgers, Gating};
use super::connect::{address, conninfo};
use super::error::report;
use super::site::{Address, Divergence, Found, Question, Role};
use super::{Error, Postgres, sql};

/// How long the leader may take to say where its sockets are.
const ASK_LIMIT: Duration = Duration::from_secs(10);

impl Postgres {
    /// Rewinds the stopped data directory onto the leader's history. Afterwards it can be started as a replica.
    pub async fn rewind(&self, leader: &Upstream) -> Outcome {
        let result = self.rewind_onto(leader).await;
        self.progress.set(None);
        report("rewind", result, |()| Outcome::Ok)
    }

    async fn rewind_onto(&self, leader: &Upstream) -> Result<(), Error> {
        let settings = self.settings();
        let major = self.site.major().await?;
        if let Some(file) = self.site.look().await.postmaster() {
            return Err(Error::Condition(format!(
                "the server (process {}) runs; it must be stopped before pg_rewind",
                file.pid
            )));
        }
        match self.site.inspect(Some(major)).await {
            Found::Cluster => {}
            Found::Empty => {
                return Err(Error::Condition(format!(
                    "{} is empty",
                    settings.data_dir.display()
                )));
            }
            Found::Incomplete(text) | Found::Unusable(text) => return Err(Error::Condition(text)),
        }
        let control = self.site.control_file().await?;
        if !control.data.rewindable {
            return Err(Error::Condition(
                "pg_rewind needs data checksums or wal_log_hints = on, and this data directory was written with neither".to_owned(),
            ));
        }
        let (leader_timeline, leader_history) = self.leader_history(leader).await?;
        self.site.remove_stale_pid_file().await?;
        self.site
            .keep_diverged(Divergence {
                own: control.data.timeline,
                leader: leader_timeline,
                leader_history,
                segment: control.segment,
            })
            .await?;
        // pg_rewind starts the server itself if it was not stopped cleanly, and reads restore_command: both need our configuration.
        let recovery = self.recovery(Some(leader)).await?;
        let role = Role::Replica(recovery);
        self.configure(
            &role,
            &control.minimums,
            None,
            Acknowledgers::ForReplica,
            Gating::Begins { shut: false },
        )
        .await?;
        // Its crash recovery is a single-user server, which refuses to be a standby. The next start writes the file anew.
        self.site.set_standby(false).await?;
        let place = address(leader)?;
        let account = settings.rewind.as_ref().unwrap_or(&settings.superuser);
        let mut further = vec![
            ("application_name", "Surus rewind"),
            ("dbname", settings.database.as_str()),
            ("target_session_attrs", "read-write"),
        ];
        further.extend(super::basebackup::PATIENCE);
        let dsn = conninfo(&settings, account, &place, &further);
        self.refuse_sockets(leader, &place, &dsn).await?;
        let progress = |progress| self.progress.set(Some(progress));
        self.site.rewind(&place, &dsn, &progress).await?;
        // Its memory of positions is of the history that was left.
        let mut memory = self.memory();
        memory.received = None;
        memory.history = None;
        memory.control = None;
        drop(memory);
        tracing::info!(leader = %leader.name, timeline = %leader_timeline, "rewound");
        Ok(())
    }

    /// pg_rewind fails half-way at a source whose Unix socket lies in its data directory, so it is not begun then.
    async fn refuse_sockets(&self, leader: &Upstream, at: &Address, conninfo: &str) -> Result<(), Error> {
        let question = Question {
            at,
            conninfo,
            command: sql::SOCKETS_IN_DATA_DIRECTORY,
            limit: ASK_LIMIT,
        };
        let found = self.site.ask(question).await?;
        if found.trim().is_empty() {
            return Ok(());
        }
        Err(Error::Condition(format!(
            "pg_rewind cannot copy from {}, whose Unix socket lies in its data directory; set unix_socket_directories to another \
             directory there, or clone this node anew",
            leader.name
        )))
    }
}
