//! Looking at PostgreSQL: what is in the data directory, what the process does, what the server says of itself.
//!
//! In the steady state a look is one prepared query on one connection. Files and processes are looked at only when that fails.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use surus_core::input::Outcome;
use surus_core::types::{Lsn, Timeline};
use surus_core::view::{
    ControlData, ControlState, DataDir, Fork, HistoryLine, PostgresView, Process, Server, ServerRole,
};
use tokio::sync::oneshot;
use tokio_postgres::error::SqlState;

use super::answer::Answer;
use super::connect::{Heartbeat, Use, host_and_port};
use super::site::{Found, Gate, PidFile, Recovery};
use super::{Error, Memory, Postgres, sql};

/// The whole look. After it PostgreSQL counts as unresponsive.
const LOOK_LIMIT: Duration = Duration::from_secs(2);

/// The query takes under a millisecond. A server that is merely busy answers within this.
const QUERY_LIMIT: Duration = Duration::from_millis(1200);

/// How long psql may take to ask the own server one question.
const TIMELINE_LIMIT: Duration = Duration::from_millis(600);

/// How long the guard's answer is waited for; it does nothing but wait for questions.
const GUARD_LIMIT: Duration = Duration::from_millis(300);

/// Why a server gave no answer.
enum Silence {
    /// It said that it takes no connections now.
    NotNow,
    /// Nothing came, or an error.
    Other,
}

impl Postgres {
    /// Looks at PostgreSQL. Never lasts much longer than two seconds.
    pub async fn probe(&self) -> Outcome {
        let at = self.clock.now();
        let view = match tokio::time::timeout(LOOK_LIMIT, self.look()).await {
            Ok(view) => view,
            Err(_) => {
                self.complain("PostgreSQL or its disk gave no answer within two seconds");
                self.heartbeat.set(None);
                self.lost_sight()
            }
        };
        Outcome::Probed { at, view }
    }

    async fn look(&self) -> PostgresView {
        if let Some(heartbeat) = self.heartbeat.get() {
            match self.ask(&heartbeat).await {
                Ok(view) => return view,
                Err(error) => {
                    self.complain(&format!("the server did not answer the probe: {}", error.chain()));
                    self.heartbeat.set(None);
                    if matches!(error, Error::Timeout { .. }) {
                        return self.without_answer().await;
                    }
                }
            }
        }
        let Some(found) = self.look_at_files().await else {
            self.complain("the data directory's disk does not answer");
            return self.lost_sight();
        };
        let Some(file) = found else {
            let process = self.without_pid_file().await;
            if process == Process::Absent {
                let mut memory = self.memory();
                memory.started_at = None;
            }
            return PostgresView {
                data: self.data_directory().await,
                process,
            };
        };
        if file.port.is_none() {
            // It has not come to opening its sockets.
            return PostgresView {
                data: self.data_directory().await,
                process: Process::Starting {
                    as_primary: self.as_primary().await,
                },
            };
        }
        if file.stopping() {
            // It takes nobody any more: to try would cost it a process, in the moment in which others wait for its end.
            return self.without_answer().await;
        }
        let silence = match self.meet(&file).await {
            Ok(heartbeat) => match self.ask(&heartbeat).await {
                Ok(view) => {
                    self.heartbeat.set(Some(heartbeat));
                    self.memory().complaint = None;
                    return view;
                }
                Err(error) => self.silence(&error, file.starting()),
            },
            Err(error) => self.silence(&error, file.starting()),
        };
        let data = self.data_directory().await;
        let process = if file.starting() || matches!(silence, Silence::NotNow) {
            Process::Starting {
                as_primary: self.as_primary().await,
            }
        } else {
            self.silent().await
        };
        PostgresView { data, process }
    }

    /// A living postmaster that is not to be asked.
    async fn without_answer(&self) -> PostgresView {
        PostgresView {
            data: self.data_directory().await,
            process: self.silent().await,
        }
    }

    /// What is said when nothing can be seen: what was seen last, and the worst of it.
    fn lost_sight(&self) -> PostgresView {
        let memory = self.memory();
        PostgresView {
            data: memory.control.as_ref().map_or_else(
                || DataDir::Unusable("the data directory's disk does not answer".to_owned()),
                |data| DataDir::Present(data.clone()),
            ),
            process: Process::Unresponsive {
                may_write: memory.primary != Some(false),
            },
        }
    }

    /// The living postmaster, if there is one. The outer `None`: an earlier look at the files has not come back yet. Looks do not
    /// pile up on a disk that hangs, for each holds a thread.
    async fn look_at_files(&self) -> Option<Option<PidFile>> {
        let stuck = Arc::clone(&self.stuck);
        if stuck.swap(true, Ordering::AcqRel) {
            return None;
        }
        let site = Arc::clone(&self.site);
        let (sender, found) = oneshot::channel();
        self.tasks.spawn(Box::pin(async move {
            let found = site.look().await.postmaster();
            stuck.store(false, Ordering::Release);
            // Who asked may have given up.
            let _ = sender.send(found);
        }));
        found.await.ok()
    }

    /// No postmaster is named by a pid file. One that was started a moment ago has not written its own yet.
    async fn without_pid_file(&self) -> Process {
        match tokio::time::timeout(GUARD_LIMIT, self.control.status()).await {
            Ok(Ok(status)) if status.pid.is_some() => Process::Starting {
                as_primary: self.as_primary().await,
            },
            _ => {
                if self.site.users().await.is_empty() {
                    Process::Absent
                } else {
                    // Backends that outlived their postmaster serve their clients until they notice.
                    self.silent().await
                }
            }
        }
    }

    /// A postmaster that lives and does not answer.
    async fn silent(&self) -> Process {
        let state = self.site.look().await.control.map(|light| light.state);
        // Once the shutdown has begun in earnest every backend is gone; in the smart phase before, the file says "in production".
        let closed = matches!(
            state,
            Some(ControlState::ShutDown | ControlState::ShutDownInRecovery | ControlState::ShuttingDown)
        );
        let primary = self.memory().primary;
        let may_write = match primary {
            _ if closed => false,
            Some(primary) => primary,
            None => self.as_primary().await,
        };
        Process::Unresponsive { may_write }
    }

    async fn as_primary(&self) -> bool {
        !self.site.look().await.standby
    }

    fn silence(&self, error: &Error, expected: bool) -> Silence {
        let code = match error {
            Error::Query { source, .. } => source.code(),
            _ => None,
        };
        if code == Some(&SqlState::CANNOT_CONNECT_NOW) {
            return Silence::NotNow;
        }
        if expected {
            return Silence::Other;
        }
        let remedy = match code {
            Some(code)
                if *code == SqlState::INVALID_PASSWORD
                    || *code == SqlState::INVALID_AUTHORIZATION_SPECIFICATION =>
            {
                "; check postgresql.authentication.superuser and pg_hba"
            }
            Some(code) if *code == SqlState::TOO_MANY_CONNECTIONS => "; raise superuser_reserved_connections",
            _ => "",
        };
        self.complain(&format!("cannot ask the local server: {}{remedy}", error.chain()));
        Silence::Other
    }

    /// Logs a complaint, once until it changes.
    fn complain(&self, text: &str) {
        let mut memory = self.memory();
        if memory.complaint.as_deref() != Some(text) {
            tracing::warn!("{text}");
            memory.complaint = Some(text.to_owned());
        }
    }

    /// The data directory of a server that does not answer.
    async fn data_directory(&self) -> DataDir {
        let major = match self.site.major().await {
            Ok(major) => Some(major),
            Err(error) => {
                self.complain(&error.chain());
                None
            }
        };
        match self.site.inspect(major).await {
            Found::Empty => DataDir::Empty,
            Found::Incomplete(text) => DataDir::Incomplete(text),
            Found::Unusable(text) => DataDir::Unusable(text),
            Found::Cluster => match self.site.control_file().await {
                Ok(file) => {
                    self.memory().control = Some(file.data.clone());
                    DataDir::Present(self.as_left(file.data).await)
                }
                Err(error) => DataDir::Unusable(error.chain()),
            },
        }
    }

    /// Where the timeline began of a directory without a server, and what it was: a base backup carries the control file of the primary it was taken from; as long as its label is there, no server has
    /// come up on it, and it never was a primary itself.
    async fn as_left(&self, data: ControlData) -> ControlData {
        let data = ControlData {
            fork: Fork::of(data.timeline, &self.history(data.timeline).await),
            ..data
        };
        if self.site.look().await.backup_label {
            ControlData {
                state: ControlState::InArchiveRecovery,
                ..data
            }
        } else {
            data
        }
    }

    /// Makes the heartbeat connection, and makes sure that it leads to our own server.
    async fn meet(&self, file: &PidFile) -> Result<Arc<Heartbeat>, Error> {
        let settings = self.settings();
        let session = self
            .open(&settings, file, "Surus heartbeat", QUERY_LIMIT, Use::Look)
            .await?;
        let named = session
            .client
            .query_one(sql::DATA_DIRECTORY, &[])
            .await
            .map_err(Error::query("tell its data directory"))?
            .get::<_, String>(0);
        if !self.site.is_here(named.clone()).await {
            return Err(Error::Condition(format!(
                "the server that answers at port {} is that of {named}, not of {}; give each its own port",
                file.port.unwrap_or(settings.port),
                settings.data_dir.display()
            )));
        }
        let query = session
            .client
            .prepare(sql::PROBE)
            .await
            .map_err(Error::query("understand the probe"))?;
        Ok(Arc::new(Heartbeat {
            session,
            query,
            details: tokio::sync::OnceCell::new(),
            pid: file.pid,
            marked: AtomicBool::new(true),
            asked_timeline: std::sync::Mutex::new(None),
        }))
    }

    async fn ask(&self, heartbeat: &Heartbeat) -> Result<PostgresView, Error> {
        let asked = async {
            let question = heartbeat.session.client.query_one(&heartbeat.query, &[]);
            let guard = tokio::time::timeout(GUARD_LIMIT, self.control.status());
            tokio::join!(question, guard)
        };
        let (row, guard) = tokio::time::timeout(QUERY_LIMIT, asked)
            .await
            .map_err(|_| Error::Timeout {
                what: "the probe".to_owned(),
                limit: QUERY_LIMIT,
            })?;
        let row = row.map_err(Error::query("answer the probe"))?;
        let mut answer = Answer::read(&row).map_err(Error::query("answer the probe in the expected form"))?;
        let guarded = guard.is_ok_and(|status| status.is_ok_and(|status| status.pid == Some(heartbeat.pid)));
        let unknown = answer.written.is_none() && answer.receiver_timeline.is_none();
        if unknown && !self.stays(&answer).await && heartbeat.asks_again() {
            // The control file may be a promotion behind, and what an agent remembers as well: the last walreceiver may have brought the beginning
            // of a timeline between two looks, and it may not have been replayed yet when this was asked first. So the server is asked in a
            // way that costs a process, now and then.
            let timeline = tokio::time::timeout(TIMELINE_LIMIT, self.replayed_timeline()).await;
            answer.receiver_timeline = timeline.ok().flatten();
        }
        if self.strayed(&answer).await {
            answer.receiver_timeline = None;
            self.memory().received = None;
        }
        let (role, timeline) = self.memory().learn(&answer);
        let history = self.history(timeline).await;
        let idle = matches!(role, ServerRole::Replica { streaming: false, .. });
        let heard_of = if idle { self.heard_of(timeline).await } else { None };
        let managed = self.managed().await.is_some();
        let gated = self.gate().await == Some(Gate::Shut);
        let data = match self.unfinished(heartbeat).await {
            Some(text) => DataDir::Incomplete(text),
            None => DataDir::Present(answer.control_data()),
        };
        Ok(PostgresView {
            data,
            process: Process::Running(Server {
                role,
                timeline,
                system_id: answer.system_id,
                version: answer.version,
                guarded,
                standbys: answer.standbys,
                synchronous: answer.synchronous,
                managed,
                gated,
                slots: answer.slots,
                history,
                upstream: match role {
                    ServerRole::Primary { .. } => None,
                    ServerRole::Replica { .. } => host_and_port(&answer.conninfo),
                },
                slot: Some(answer.slot).filter(|slot| !slot.is_empty()),
                heard_of,
            }),
        })
    }

    /// What was begun and not finished in the running server's directory (a bootstrap whose roles are missing). Once nothing is
    /// found, nothing is looked for on this connection again.
    async fn unfinished(&self, heartbeat: &Heartbeat) -> Option<String> {
        if !heartbeat.marked.load(Ordering::Relaxed) {
            return None;
        }
        let found = self.site.unfinished().await;
        heartbeat.marked.store(found.is_some(), Ordering::Relaxed);
        found.map(|work| work.text)
    }

    /// The timeline that is remembered of this standby is still its own: it comes to no other without that one's history file, which PostgreSQL
    /// fetches first.
    async fn stays(&self, answer: &Answer) -> bool {
        let remembered = self.memory().received;
        match remembered.filter(|(system_id, ..)| *system_id == answer.system_id) {
            Some((_, timeline, _)) => self.heard_of(timeline).await.is_none(),
            None => false,
        }
    }

    /// This standby is said to be on a timeline that goes back to less of an older one than it has replayed: it has diverged, and its
    /// walreceiver asks in vain. PostgreSQL fetches a piece of the newer one over the older, once, and names that timeline from then on
    /// (15.18).
    ///
    /// What it has replayed is the end that the control file wants recovery to reach. What it has received proves nothing: the last record
    /// may have come by half.
    async fn strayed(&self, answer: &Answer) -> bool {
        let remembered = self.memory().received;
        let remembered = remembered.filter(|(system_id, ..)| *system_id == answer.system_id);
        let said = answer
            .receiver_timeline
            .max(remembered.map(|(_, timeline, _)| timeline));
        let Some(said) = said.filter(|said| answer.written.is_none() && answer.recovered_timeline < *said)
        else {
            return false;
        };
        let history = self.history(said).await;
        history
            .iter()
            .any(|line| line.timeline == answer.recovered_timeline && line.switch < answer.recovered)
    }

    /// The last of the timelines after `own`, one after the other, whose history file is here.
    async fn heard_of(&self, own: Timeline) -> Option<Timeline> {
        let mut last = None;
        let mut next = Timeline(own.0 + 1);
        while self.site.history(next).await.is_some() {
            last = Some(next);
            next = Timeline(next.0 + 1);
        }
        last
    }

    /// The history of a timeline, from its file; read once.
    pub(super) async fn history(&self, timeline: Timeline) -> Vec<HistoryLine> {
        if let Some((known, lines)) = &self.memory().history
            && *known == timeline
        {
            return lines.clone();
        }
        let lines = if timeline <= Timeline(1) {
            Vec::new()
        } else {
            match self.site.history(timeline).await {
                Some(text) => parse_history(&text),
                // It may be on its way from the primary.
                None => return Vec::new(),
            }
        };
        self.memory().history = Some((timeline, lines.clone()));
        lines
    }
}

impl Memory {
    /// Takes in an answer; returns the role and the timeline with what is remembered added.
    fn learn(&mut self, answer: &Answer) -> (ServerRole, Timeline) {
        self.started_at = Some(answer.started.clone());
        if let (Some(written), Some(timeline)) = (answer.written, answer.written_timeline) {
            self.primary = Some(true);
            self.received = None;
            return (ServerRole::Primary { written }, timeline);
        }
        self.primary = Some(false);
        self.recovery = Some(Recovery {
            conninfo: answer.conninfo.clone(),
            slot: Some(answer.slot.clone()).filter(|slot| !slot.is_empty()),
        });
        let replayed = answer.replayed.unwrap_or_default();
        let mut timeline = answer
            .checkpoint_timeline
            .max(answer.recovered_timeline)
            .max(answer.receiver_timeline.unwrap_or_default());
        let mut received = answer.received;
        if let Some((system_id, then, furthest)) = self.received
            && system_id == answer.system_id
            && timeline <= then
        {
            // The walreceiver is gone, and with it the knowledge of what it received; the WAL itself is on disk.
            timeline = then;
            received = received.max(Some(furthest));
        }
        self.received = Some((
            answer.system_id,
            timeline,
            received.unwrap_or_default().max(replayed),
        ));
        (
            ServerRole::Replica {
                received,
                replayed,
                streaming: answer.streaming,
            },
            timeline,
        )
    }
}

/// The lines of a history file: timeline, switch point and reason, separated by tabs.
pub(super) fn parse_history(content: &str) -> Vec<HistoryLine> {
    content
        .lines()
        .filter_map(|line| {
            let line = line.trim_start();
            let (timeline, rest) = line.split_once(char::is_whitespace)?;
            let rest = rest.trim_start();
            let (switch, reason) = rest.split_once(char::is_whitespace).unwrap_or((rest, ""));
            Some(HistoryLine {
                timeline: Timeline(timeline.parse().ok()?),
                switch: Lsn::parse(switch)?,
                reason: reason.trim().to_owned(),
                at: None,
                leader: None,
            })
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use surus_core::sync::Names;
    use surus_core::types::SystemId;

    use super::*;

    fn replica(timeline: u32, received: Option<u64>, replayed: u64) -> Answer {
        Answer {
            received: received.map(Lsn),
            replayed: Some(Lsn(replayed)),
            receiver_timeline: (timeline != 0).then_some(Timeline(timeline)),
            checkpoint_timeline: Timeline(1),
            written: None,
            written_timeline: None,
            streaming: false,
            checkpoint: Lsn(0),
            recovered: Lsn(0),
            recovered_timeline: Timeline(0),
            rewindable: true,
            system_id: SystemId(7),
            version: 150_000,
            standbys: BTreeMap::new(),
            slots: BTreeMap::new(),
            conninfo: String::new(),
            slot: String::new(),
            started: String::new(),
            synchronous: Names::Alone,
        }
    }

    #[test]
    fn what_was_received_is_not_forgotten_with_the_walreceiver() {
        let mut memory = Memory::default();
        let (_, timeline) = memory.learn(&replica(2, Some(900), 500));
        assert_eq!(timeline, Timeline(2));
        let (role, timeline) = memory.learn(&replica(0, None, 600));
        assert_eq!(timeline, Timeline(2));
        assert!(matches!(
            role,
            ServerRole::Replica {
                received: Some(Lsn(900)),
                ..
            }
        ));
        let (role, timeline) = memory.learn(&replica(3, Some(100), 700));
        assert_eq!(timeline, Timeline(3));
        assert!(matches!(
            role,
            ServerRole::Replica {
                received: Some(Lsn(100)),
                ..
            }
        ));
    }

    #[test]
    fn history_lines_are_read_and_others_skipped() {
        let lines =
            parse_history("1\t0/30000A0\tno recovery target specified\n\n# x\n2\t1/0\tbefore 2000-01-01\n");
        assert_eq!(lines.len(), 2);
        assert_eq!(lines[0].switch, Lsn(0x300_00A0));
        assert_eq!(lines[1].reason, "before 2000-01-01");
        assert!(parse_history("").is_empty());
    }
}
