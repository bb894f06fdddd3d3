//! Leaving recovery.
//!
//! PostgreSQL calls its new timeline the first number, counted from its own, that has no history file. A node that has missed a
//! promotion would therefore take a number that exists elsewhere with another history. An empty history file under each such number
//! makes it go on counting (tried on PostgreSQL 15: two empty files, timeline 4 after 1). Replicas fetch them with the real one. They
//! must not be the newest of a directory when a standby starts there, for it would take the last for its target and refuse to
//! start: [`Site::prepare`](super::Site::prepare) sees to that.
//!
//! A standby that has lost its upstream less than `wal_retrieve_retry_interval` ago (5 s), which is the very moment of a failover, may
//! notice the request just before it goes to sleep for the rest of that time, and then promotes only when it wakes (seen on 15.18:
//! 5.05 s). So the startup process is woken until it is done.

use std::time::Duration;

use surus_core::input::Outcome;
use surus_core::sync::Names;
use surus_core::types::{Generation, MonoTime, Timeline};

use tokio_postgres::Client;

use super::connect::Link;
use super::error::report;
use super::{Error, Postgres, sql};

/// How often a promotion is looked at: it takes about 30 ms on an idle standby, and each question half a millisecond.
const TICK: Duration = Duration::from_millis(3);

/// How often the startup process is woken while it has not promoted: it reads its configuration each time, in about a millisecond.
const WAKE: Duration = Duration::from_millis(15);

/// How long one question to a server that is being promoted may take before another connection is tried.
const QUERY_LIMIT: Duration = Duration::from_millis(500);

impl Postgres {
    /// Leaves recovery, the guard armed with `guard_until` first, with commits acknowledged by `synchronous`, and with `gated` members alone
    /// let in. The new timeline is above `above`. Returns when writes are accepted; on a server that is primary already it only sets the deadline.
    pub async fn promote(
        &self,
        guard_until: MonoTime,
        valid_until: MonoTime,
        above: Timeline,
        synchronous: Option<&Names>,
        gated: bool,
        generation: Generation,
    ) -> Outcome {
        let work = self.leave_recovery(guard_until, valid_until, above, synchronous, gated, generation);
        let result = work.await;
        if result
            .as_ref()
            .is_err_and(|error| !matches!(error, Error::Unknown(_)))
        {
            self.lift_gate().await;
        }
        report("promote", result, |changed| {
            if changed {
                self.site.callback("on_role_change", "primary");
            }
            Outcome::Ok
        })
    }

    /// Returns whether the role changed.
    async fn leave_recovery(
        &self,
        guard_until: MonoTime,
        valid_until: MonoTime,
        above: Timeline,
        synchronous: Option<&Names>,
        gated: bool,
        generation: Generation,
    ) -> Result<bool, Error> {
        self.still_valid(valid_until, generation)?;
        let settings = self.settings();
        if let Some(hook) = &settings.pre_promote {
            let left = valid_until.since(self.clock.now());
            self.site.hook("pre_promote", hook, left).await?;
        }
        let mut link = match self.link().await {
            Ok((_, found)) if !found.recovering => {
                self.still_valid(valid_until, generation)?;
                self.control.set_deadline(Some(guard_until), generation).await?;
                return Ok(false);
            }
            Ok((link, _)) => Some(link),
            Err(error) => {
                // Before a standby is consistent it takes no connections, but it can be promoted.
                tracing::warn!(error = %error.chain(), "the standby takes no connections; promoting by signal");
                None
            }
        };
        self.site.reserve(above).await?;
        self.acknowledge_from_first(synchronous, link.as_ref().map(Link::client), valid_until)
            .await;
        if gated {
            self.shut_gate(valid_until).await?;
        }
        // From here on the server may accept writes at any moment, so the guard comes first.
        self.still_valid(valid_until, generation)?;
        self.control.set_deadline(Some(guard_until), generation).await?;
        if let Err(refused) = self.still_valid(valid_until, generation) {
            self.control.set_deadline(None, generation).await?;
            return Err(refused);
        }
        match &link {
            Some(link) => {
                let asked = link.client().query_one(sql::PROMOTE, &[]);
                let lost = |problem: String| {
                    Error::Unknown(format!("the request for promotion was not answered: {problem}"))
                };
                tokio::time::timeout(QUERY_LIMIT, asked)
                    .await
                    .map_err(|_| lost(format!("nothing came within {QUERY_LIMIT:?}")))?
                    .map_err(|error| lost(super::error::chain(&error)))?;
            }
            None => self.site.promote().await?,
        }
        self.memory().primary = Some(true);
        let limit = Duration::from_secs(settings.pg_ctl_timeout.max(1));
        let deadline = self.clock.now().plus(limit);
        let mut woken = self.clock.now();
        loop {
            let recovering = match link.take() {
                Some(open) => {
                    let recovering = in_recovery(open.client()).await;
                    if recovering.is_ok() {
                        link = Some(open);
                    }
                    recovering.ok()
                }
                None => match self.link().await {
                    Ok((open, recovering)) => {
                        link = Some(open);
                        Some(recovering)
                    }
                    Err(_) => None,
                },
            };
            if let Some(found) = recovering {
                if !found.recovering {
                    break;
                }
                if let Some(startup) = found.startup
                    && woken.plus(WAKE) <= self.clock.now()
                {
                    self.site.wake(startup).await;
                    woken = self.clock.now();
                }
            }
            if recovering.is_none() && self.site.look().await.postmaster().is_none() {
                return Err(Error::Unknown(
                    "promotion was requested, and the server ended before it could be asked".to_owned(),
                ));
            }
            if deadline <= self.clock.now() {
                return Err(Error::Unknown(format!(
                    "promotion was requested and has not ended within {limit:?}"
                )));
            }
            tokio::time::sleep(TICK).await;
        }
        let mut memory = self.memory();
        memory.received = None;
        memory.history = None;
        Ok(true)
    }

    /// A connection that answers, and whether the server is in recovery.
    async fn link(&self) -> Result<(Link, Recovering), Error> {
        if let Some(heartbeat) = self.heartbeat.get()
            && let Ok(recovering) = in_recovery(&heartbeat.session.client).await
        {
            return Ok((Link::Shared(heartbeat), recovering));
        }
        let session = self.connect("Surus promotion", QUERY_LIMIT).await?;
        let recovering = in_recovery(&session.client).await?;
        Ok((Link::Own(session), recovering))
    }
}

/// Whether the server is in recovery, and the process that does the recovery.
#[derive(Debug, Clone, Copy)]
struct Recovering {
    recovering: bool,
    startup: Option<u32>,
}

async fn in_recovery(client: &Client) -> Result<Recovering, Error> {
    let asked = client.query_one(sql::RECOVERING, &[]);
    let row = tokio::time::timeout(QUERY_LIMIT, asked)
        .await
        .map_err(|_| Error::Timeout {
            what: "asking whether the server is in recovery".to_owned(),
            limit: QUERY_LIMIT,
        })?
        .map_err(Error::query("tell whether it is in recovery"))?;
    Ok(Recovering {
        recovering: row.get(0),
        startup: row.get::<_, Option<i32>>(1).map(i32::cast_unsigned),
    })
}
