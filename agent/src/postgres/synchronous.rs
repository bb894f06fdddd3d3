//! `synchronous_standby_names`: by whom commits are acknowledged.
//!
//! PostgreSQL has no moment at which a new value comes into force: each process reads it at its own time, and three kinds of them matter.
//! The postmaster hands its value to whatever it starts. Each walsender lets commits return by the value that it has read itself. That
//! commits wait for anybody at all is a flag in shared memory, which the checkpointer sets when it reads. So an order ends well when
//!
//! - a connection made after the reload shows the value: the postmaster has read it, and in the same breath has told all others to;
//! - every walsender shows the priority that the value gives it, which it works out as it reads. One whose priority stays the same shows
//!   nothing: it is given time until it has handled another answer of its standby, for it reads before it does that, or has been idle
//!   for a second;
//! - the checkpointer was seen asleep twice, for it reads before it goes to sleep, unless the flag was and stays as it must be. A
//!   `CHECKPOINT` (as after a promotion) keeps it awake to its end, a spread one before PostgreSQL 15 out of sight.
//!
//! Whose the setting is, the core's or the user's, stands in the file itself, so that an agent that is restarted knows.

use std::collections::BTreeMap;
use std::time::Duration;

use surus_core::input::Outcome;
use surus_core::sync::Names;
use surus_core::types::{Generation, MonoTime};
use tokio_postgres::Client;

use super::conf::{Acknowledgers, Gating};
use super::connect::Session;
use super::error::report;
use super::{Error, Postgres, Signal, sql};

/// How often it is looked whether all have read it.
const TICK: Duration = Duration::from_millis(10);

/// A promotion does not wait longer than this for its setting: until it is written to `sync`, nobody else is elected by it.
const PROMOTION_LIMIT: Duration = Duration::from_millis(300);

/// A process that is told to read its settings is woken by that and has read them within milliseconds; but where a container has used up
/// its share of the processor, one process of it can stand still for a tenth of a second while others run.
const WOKEN: Duration = Duration::from_millis(200);

/// How long a walsender without work is waited for.
const IDLE: Duration = Duration::from_secs(1);

/// What the order may take at least, however short `retry_timeout` is: an idle walsender alone takes a second.
const LEAST: Duration = Duration::from_secs(2);

impl Postgres {
    /// Has commits acknowledged by `names`; `None`: as the user has set it. Returns when every process of the primary knows, or within
    /// `limit`, but not less than two seconds.
    pub async fn set_synchronous(
        &self,
        names: Option<&Names>,
        limit: Duration,
        generation: Generation,
    ) -> Outcome {
        let until = self.clock.now().plus(limit.max(LEAST));
        let work = self.acknowledge_by(names, until, generation).await;
        report("set synchronous_standby_names", work, |()| Outcome::Ok)
    }

    async fn acknowledge_by(
        &self,
        names: Option<&Names>,
        until: MonoTime,
        generation: Generation,
    ) -> Result<(), Error> {
        self.newest(generation)?;
        let session = self.own_session().await?;
        let former = shown(&session.client).await?;
        if former.recovering {
            return Err(Error::Condition(
                "the server is a replica: nobody acknowledges its commits".to_owned(),
            ));
        }
        let before = senders(&session.client).await?;
        let waited = self.memory().waits.take();
        let rewritten = self
            .reconfigure(Acknowledgers::Set(names.cloned()), Gating::Kept)
            .await?
            .ok_or_else(|| Error::Condition("no server runs that could be told".to_owned()))?;
        // From here on the next reload, whoever asks for it, brings the new value.
        let unknown = |error: Error| Error::Unknown(error.chain());
        let loaded = self.loaded().await.map_err(unknown)?;
        self.signal(rewritten.postmaster.pid, Signal::Reload)
            .await
            .map_err(unknown)?;
        let (session, loaded) = self.read_by_postmaster(names, &loaded, until).await?;
        let Some(names) = names else {
            return Ok(());
        };
        let waits = *names != Names::Alone;
        let mut reading = Reading {
            names,
            before,
            since: self.clock.now(),
            first: None,
            asleep: None,
            // Nobody has had it read since it was known.
            flag: waited == Some((waits, former.loaded)),
        };
        while let Some(missing) = reading
            .missing(&session.client, self.clock.now())
            .await
            .map_err(unknown)?
        {
            if until <= self.clock.now() {
                return Err(Error::Unknown(format!(
                    "synchronous_standby_names is {:?}, but {missing} has not read it yet",
                    names.to_string()
                )));
            }
            tokio::time::sleep(TICK).await;
        }
        self.memory().waits = Some((waits, loaded));
        tracing::info!(
            synchronous_standby_names = names.to_string(),
            took = ?self.clock.now().since(reading.since),
            "set by whom commits are acknowledged"
        );
        if waits && names.members().next().is_none() {
            tracing::warn!("no standby can acknowledge commits and synchronous_mode_strict is on: they wait");
        }
        Ok(())
    }

    /// Waits until new connections show `names`, and the configuration was read after `loaded`; returns such a connection, and when that was.
    pub(super) async fn read_by_postmaster(
        &self,
        names: Option<&Names>,
        loaded: &str,
        until: MonoTime,
    ) -> Result<(Session, String), Error> {
        loop {
            // A moment without an answer is as good as a look too early.
            let looked = async {
                let session = self.own_session().await?;
                let shown = shown(&session.client).await?;
                Ok::<_, Error>((session, shown))
            };
            let last = match looked.await {
                Ok((session, shown)) if shown.loaded != loaded => {
                    let wanted = names.map(ToString::to_string);
                    if wanted.as_ref().is_none_or(|wanted| *wanted == shown.value) {
                        return Ok((session, shown.loaded));
                    }
                    return Err(Error::Unknown(format!(
                        "synchronous_standby_names is {:?} by {}, which overrides what synchronous_mode needs ({:?}): run ALTER SYSTEM \
                         RESET synchronous_standby_names, or take it out there, and reload",
                        shown.value,
                        shown.source,
                        wanted.unwrap_or_default()
                    )));
                }
                Ok(_) => "it has not read its configuration; its log says why".to_owned(),
                Err(error) => error.chain(),
            };
            if until <= self.clock.now() {
                return Err(Error::Unknown(format!(
                    "PostgreSQL was told to read its configuration: {last}"
                )));
            }
            tokio::time::sleep(TICK).await;
        }
    }

    /// Has a standby that is about to be promoted begin with `names`. What `client` shows need not be read again.
    ///
    /// The reign begins with a `sync` key that names nobody else, so a value that comes late, or not at all, costs no acknowledged commit:
    /// it keeps nobody from being promoted.
    pub(super) async fn acknowledge_from_first(
        &self,
        names: Option<&Names>,
        client: Option<&Client>,
        valid_until: MonoTime,
    ) {
        if let Err(error) = self.begin_with(names, client, valid_until).await {
            tracing::warn!(error = %error.chain(), "promoting before synchronous_standby_names is in force");
        }
    }

    async fn begin_with(
        &self,
        names: Option<&Names>,
        client: Option<&Client>,
        valid_until: MonoTime,
    ) -> Result<(), Error> {
        let known = self.managed().await;
        if known.is_none() && names.is_none() {
            return Ok(());
        }
        let value = match client {
            Some(client) => soon(shown(client)).await.ok().map(|shown| shown.value),
            None => None,
        };
        let in_force = value == names.map(ToString::to_string);
        if known.as_ref() == names && in_force {
            return Ok(());
        }
        let rewritten = self
            .reconfigure(Acknowledgers::Set(names.cloned()), Gating::Kept)
            .await?;
        let Some(rewritten) = rewritten.filter(|_| !in_force) else {
            return Ok(());
        };
        // A standby that is not consistent takes no connections, and is not asked.
        let loaded = match client.and(names) {
            Some(_) => soon(self.loaded()).await.ok(),
            None => None,
        };
        self.signal(rewritten.postmaster.pid, Signal::Reload).await?;
        if let Some(loaded) = loaded {
            soon(self.read_by_postmaster(names, &loaded, valid_until)).await?;
        }
        Ok(())
    }

    /// When the postmaster read its configuration. Other sessions than new ones say when they did so themselves.
    async fn loaded(&self) -> Result<String, Error> {
        let session = self.own_session().await?;
        Ok(shown(&session.client).await?.loaded)
    }

    pub(super) async fn own_session(&self) -> Result<Session, Error> {
        self.connect("Surus synchronous", LEAST).await
    }
}

/// What a promotion has time for.
async fn soon<T>(work: impl Future<Output = Result<T, Error>>) -> Result<T, Error> {
    tokio::time::timeout(PROMOTION_LIMIT, work)
        .await
        .map_err(|_| Error::Timeout {
            what: "setting by whom commits are acknowledged".to_owned(),
            limit: PROMOTION_LIMIT,
        })?
}

/// What a session knows of the setting.
struct Shown {
    value: String,
    /// When this process or, before it existed, the postmaster read its configuration.
    loaded: String,
    /// Where the value comes from.
    source: String,
    recovering: bool,
}

async fn shown(client: &Client) -> Result<Shown, Error> {
    let row = client
        .query_one(sql::SYNCHRONOUS, &[])
        .await
        .map_err(Error::query("show synchronous_standby_names"))?;
    Ok(Shown {
        value: row.get(0),
        loaded: row.get(1),
        source: row.get(2),
        recovering: row.get(3),
    })
}

/// A walsender.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Sender {
    name: String,
    priority: i32,
    /// It counts: without a position of its standby PostgreSQL shows no priority.
    counts: bool,
    /// When its standby wrote the last answer, by that one's clock.
    answered: String,
}

type Senders = BTreeMap<i32, Sender>;

async fn senders(client: &Client) -> Result<Senders, Error> {
    let rows = client
        .query(sql::ACKNOWLEDGERS, &[])
        .await
        .map_err(Error::query("list its walsenders"))?;
    let read = |row: &tokio_postgres::Row| {
        let sender = Sender {
            name: row.get(1),
            priority: row.get(2),
            counts: row.get(3),
            answered: row.get(4),
        };
        (row.get(0), sender)
    };
    Ok(rows.iter().map(read).collect())
}

/// Who has read the value by now.
struct Reading<'a> {
    names: &'a Names,
    /// The walsenders before anybody was told.
    before: Senders,
    /// When all had been told.
    since: MonoTime,
    /// The walsenders at the first look after that.
    first: Option<Senders>,
    /// When the checkpointer was first seen asleep.
    asleep: Option<MonoTime>,
    /// The flag is as it must be.
    flag: bool,
}

impl Reading<'_> {
    /// Who may not have read it, in words.
    async fn missing(&mut self, client: &Client, now: MonoTime) -> Result<Option<String>, Error> {
        let senders = senders(client).await?;
        let first = self.first.get_or_insert_with(|| senders.clone());
        let late = senders.iter().find(|(pid, sender)| {
            !has_read(
                self.names,
                self.before.get(pid),
                first.get(pid),
                sender,
                now.since(self.since),
            )
        });
        if let Some((pid, sender)) = late {
            return Ok(Some(format!("the walsender of {} (process {pid})", sender.name)));
        }
        if !self.flag {
            let row = client
                .query_one(sql::CHECKPOINTER_SLEEPS, &[])
                .await
                .map_err(Error::query("tell what its checkpointer does"))?;
            if row.get(0) {
                let first = *self.asleep.get_or_insert(now);
                self.flag = WOKEN <= now.since(first);
            }
        }
        Ok((!self.flag).then(|| "the checkpointer, which is at work,".to_owned()))
    }
}

/// The walsender has read `names`, `passed` after it was told; `before` is as it was then, `first` as it was seen first after.
fn has_read(
    names: &Names,
    before: Option<&Sender>,
    first: Option<&Sender>,
    sender: &Sender,
    passed: Duration,
) -> bool {
    let named = names
        .members()
        .any(|name| name.as_str().eq_ignore_ascii_case(&sender.name));
    if !named {
        return sender.priority == 0;
    }
    if sender.counts && sender.priority == 0 {
        return false;
    }
    // One that was not there at the first look was started by a postmaster that knew.
    let same = |known: &&Sender| known.name == sender.name;
    let Some(before) = before.filter(same).or(first.filter(same)) else {
        return true;
    };
    let answered = first.is_none_or(|first| first.answered != sender.answered);
    before.priority != sender.priority || IDLE <= passed || WOKEN <= passed && answered
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sender(name: &str, priority: i32, answered: &str) -> Sender {
        Sender {
            name: name.to_owned(),
            priority,
            counts: true,
            answered: answered.to_owned(),
        }
    }

    #[test]
    fn a_walsender_has_read_what_its_priority_or_time_shows() {
        let names = Names::parse("b");
        let (none, some) = (sender("B", 0, "1"), sender("B", 1, "1"));
        let later = sender("B", 1, "2");
        let read = |before, first, now: &Sender, passed| {
            has_read(&names, before, first, now, Duration::from_millis(passed))
        };
        assert!(!read(Some(&none), Some(&none), &none, 9000));
        assert!(read(Some(&none), Some(&none), &some, 1));
        assert!(read(None, None, &some, 1), "it came since");
        assert!(!read(None, Some(&some), &some, 1), "it came just before");
        assert!(read(None, Some(&none), &some, 1));
        assert!(!read(Some(&some), Some(&some), &some, 999));
        assert!(read(Some(&some), Some(&some), &some, 1000));
        assert!(!read(Some(&some), Some(&some), &later, 199));
        assert!(read(Some(&some), Some(&some), &later, 200));
        let other = sender("c", 1, "1");
        assert!(!read(Some(&other), Some(&other), &other, 9000));
        assert!(read(Some(&other), Some(&other), &sender("c", 0, "1"), 1));
        let silent = Sender {
            counts: false,
            ..none.clone()
        };
        assert!(read(None, None, &silent, 1), "it shows no priority yet");
        assert!(!read(Some(&silent), Some(&silent), &silent, 999));
    }
}
