//! Whom a replica follows, and how its history compares with the leader's.

use std::time::Duration;

use surus_core::action::Upstream;
use surus_core::input::Outcome;
use surus_core::types::Timeline;
use surus_core::view::HistoryLine;
use tokio_postgres::SimpleQueryMessage;

use super::answer::Answer;
use super::conf::{Acknowledgers, Gating};
use super::connect::{address, conninfo, host_and_port};
use super::error::report;
use super::probe::parse_history;
use super::site::{Address, PidFile, Question, Recovery, Role};
use super::{Error, Postgres, Signal};
use crate::config::settings::PostgresSettings;

/// A leader on the next machine answers within milliseconds; one that does not within this is asked again by the core.
const ASK_LIMIT: Duration = Duration::from_secs(5);

/// How long a server may take to read whom it follows: it takes milliseconds, unless it hangs.
const READ_LIMIT: Duration = Duration::from_millis(200);

/// How often it is asked for that.
const READ_TICK: Duration = Duration::from_millis(5);

impl Postgres {
    /// Makes the running replica follow `upstream`, or nobody.
    pub async fn follow(&self, upstream: Option<&Upstream>) -> Outcome {
        let work = async {
            let recovery = self.recovery(upstream).await?;
            self.point_at(&recovery).await
        };
        report("follow", work.await, |()| Outcome::Ok)
    }

    /// Writes recovery settings for the running replica and has them read.
    pub(super) async fn point_at(&self, recovery: &Recovery) -> Result<(), Error> {
        let settings = self.settings();
        let look = self.site.look().await;
        let standby = look.standby;
        let file = look
            .postmaster()
            .ok_or_else(|| Error::Condition(format!("no server runs in {}", settings.data_dir.display())))?;
        if !standby {
            return Err(Error::Condition(
                "the server was started as primary and cannot follow; it must be stopped first".to_owned(),
            ));
        }
        let minimums = self.site.control_file().await?.minimums;
        self.configure(
            &Role::Replica(recovery.clone()),
            &minimums,
            None,
            Acknowledgers::Kept,
            Gating::Kept,
        )
        .await?;
        self.memory().recovery = Some(recovery.clone());
        // Unchanged files may still be unread: an agent before this one can have been killed between the two.
        self.signal(file.pid, Signal::Reload).await?;
        let _ = tokio::time::timeout(READ_LIMIT, self.has_read(recovery)).await;
        tracing::info!(
            upstream = host_and_port(&recovery.conninfo),
            slot = recovery.slot,
            "told the replica whom to follow"
        );
        Ok(())
    }

    /// Waits until the server says that it follows whom it was told to: a look that comes before has it told again, and its walreceiver started
    /// once more.
    async fn has_read(&self, recovery: &Recovery) {
        let wanted = (
            host_and_port(&recovery.conninfo),
            recovery.slot.as_deref().unwrap_or_default(),
        );
        while let Some(heartbeat) = self.heartbeat.get() {
            let row = heartbeat.session.client.query_one(&heartbeat.query, &[]).await;
            match row.and_then(|row| Answer::read(&row)) {
                Ok(answer) if (host_and_port(&answer.conninfo), answer.slot.as_str()) != wanted => {}
                _ => return,
            }
            tokio::time::sleep(READ_TICK).await;
        }
    }

    /// Asks the leader which timelines it went through. Fails if it is in recovery itself.
    pub async fn compare_history(&self, leader: &Upstream) -> Outcome {
        report(
            "compare history",
            self.leader_history(leader).await,
            |(timeline, history)| Outcome::Ancestry { timeline, history },
        )
    }

    pub(super) async fn leader_history(
        &self,
        leader: &Upstream,
    ) -> Result<(Timeline, Vec<HistoryLine>), Error> {
        let settings = self.settings();
        let place = address(leader)?;
        self.site.keep_passwords(&place).await?;
        let further = [
            ("replication", "1"),
            ("application_name", "Surus history"),
            ("connect_timeout", "3"),
            ("target_session_attrs", "read-write"),
        ];
        let dsn = conninfo(&settings, &settings.replication, &place, &further);
        let identity = self.ask_walsender(&place, &dsn, "IDENTIFY_SYSTEM").await?;
        let timeline = timeline_of(&identity)
            .ok_or_else(|| Error::Condition(format!("{} gave no timeline: {identity:?}", leader.name)))?;
        if timeline <= Timeline(1) {
            return Ok((timeline, Vec::new()));
        }
        let answer = self
            .ask_walsender(&place, &dsn, &format!("TIMELINE_HISTORY {timeline}"))
            .await?;
        // The first column is the file's name, and the file's first line follows it.
        let content = answer.split_once('\t').map_or("", |(_, content)| content);
        Ok((timeline, parse_history(content)))
    }

    /// The timeline that the own server replays, which no SQL function tells. `None` if pg_hba lets no replication in from here.
    pub(super) async fn replayed_timeline(&self) -> Option<Timeline> {
        let settings = self.settings();
        let file = self.site.look().await.pid_file?;
        match self.identify(&settings, &file).await {
            Ok(timeline) => return Some(timeline),
            Err(error) => {
                tracing::debug!(error = %error.chain(), "the own walsender is not to be asked directly");
            }
        }
        // With TLS, as pg_hba may want it.
        let listen = file
            .listen
            .filter(|listen| !matches!(listen.as_str(), "*" | "0.0.0.0" | "::"));
        let place = Address {
            host: listen.unwrap_or_else(|| "127.0.0.1".to_owned()),
            port: file.port?,
        };
        self.site.keep_passwords(&place).await.ok()?;
        let further = [
            ("replication", "1"),
            ("application_name", "Surus timeline"),
            ("connect_timeout", "2"),
        ];
        let dsn = conninfo(&settings, &settings.replication, &place, &further);
        match self.ask_walsender(&place, &dsn, "IDENTIFY_SYSTEM").await {
            Ok(identity) => timeline_of(&identity),
            Err(error) => {
                tracing::debug!(error = %error.chain(), "the own server did not tell its timeline");
                None
            }
        }
    }

    async fn identify(&self, settings: &PostgresSettings, file: &PidFile) -> Result<Timeline, Error> {
        let session = self.open_walsender(settings, file, "Surus timeline").await?;
        let answer = session.client.simple_query("IDENTIFY_SYSTEM").await;
        let answer = answer.map_err(Error::query("tell its timeline"))?;
        let column = answer.iter().find_map(|message| match message {
            SimpleQueryMessage::Row(row) => row.get(1),
            _ => None,
        });
        column
            .and_then(|column| column.parse().ok())
            .map(Timeline)
            .ok_or_else(|| Error::Condition(format!("the walsender gave no timeline: {answer:?}")))
    }

    /// One command to a walsender; its columns come separated by tabs.
    async fn ask_walsender(&self, at: &Address, conninfo: &str, command: &str) -> Result<String, Error> {
        let question = Question {
            at,
            conninfo,
            command,
            limit: ASK_LIMIT,
        };
        self.site.ask(question).await
    }
}

/// The second column of an answer to IDENTIFY_SYSTEM.
fn timeline_of(identity: &str) -> Option<Timeline> {
    identity.trim().split('\t').nth(1)?.parse().ok().map(Timeline)
}
