//! The gate: rules by which PostgreSQL lets in members alone, for as long as a new primary shows what no standby has.
//!
//! Where the rules of connections are can be said at a start only, and what they are at any time. So with the gate a server is started with
//! a file of rules of the agent's own, which holds a copy of the user's or, while the gate is shut, of what they say of members. Who is
//! connected already is not touched by rules: before a promotion all who are not the agent are sent away.

use std::time::Duration;

use surus_core::input::Outcome;
use surus_core::types::{Generation, MonoTime};

use super::conf::{Acknowledgers, Gating};
use super::connect::Session;
use super::error::report;
use super::site::Gate;
use super::{Error, Postgres, Signal, sql};

/// How often it is looked whether the rules are in force, and whether all have gone.
const TICK: Duration = Duration::from_millis(5);

/// How long a promotion waits for either. PostgreSQL reads its rules in milliseconds, and a session ends within some more; one that is frozen
/// does not.
const SHUT_LIMIT: Duration = Duration::from_secs(2);

/// What the order to open may take at least.
const LEAST: Duration = Duration::from_secs(2);

impl Postgres {
    /// Lets clients in. Returns when new connections go by the user's rules, or within `limit`, but not less than two seconds.
    pub async fn open_gate(&self, limit: Duration, generation: Generation) -> Outcome {
        let until = self.clock.now().plus(limit.max(LEAST));
        let work = async {
            self.newest(generation)?;
            self.turn_gate(false, until).await
        };
        report("let clients in", work.await, |_| {
            tracing::info!("clients are let in");
            Outcome::Ok
        })
    }

    /// Keeps everybody but members out of a standby that is about to be promoted, and sends away who is there.
    pub(super) async fn shut_gate(&self, valid_until: MonoTime) -> Result<(), Error> {
        let until = valid_until.min(self.clock.now().plus(SHUT_LIMIT));
        let Some(session) = self.turn_gate(true, until).await? else {
            tracing::warn!(
                "promoting with clients let in: the gate of synchronous_gate_timeout takes a restart of PostgreSQL, which is pending"
            );
            return Ok(());
        };
        loop {
            let row = session.client.query_one(sql::DISMISS, &[]).await;
            let left: i32 = row.map_err(Error::query("send its clients away"))?.get(0);
            if left == 0 {
                return Ok(());
            }
            if until <= self.clock.now() {
                return Err(Error::Condition(format!(
                    "{left} sessions do not end, and would see what no standby has"
                )));
            }
            tokio::time::sleep(TICK).await;
        }
    }

    /// A promotion came to nothing: the standby is for everybody again.
    pub(super) async fn lift_gate(&self) {
        if self.gate().await == Some(Gate::Shut)
            && let Err(error) = self.turn_gate(false, self.clock.now().plus(LEAST)).await
        {
            tracing::warn!(error = %error.chain(), "clients are still kept out of the standby");
        }
    }

    /// Has the running server go by the rules; returns a session that shows it does. `None`: it was started without a gate.
    async fn turn_gate(&self, shut: bool, until: MonoTime) -> Result<Option<Session>, Error> {
        if self.gate().await.is_none() {
            return Ok(None);
        }
        let session = self.own_session().await?;
        let row = session.client.query_one(sql::GATE, &[]).await;
        let row = row.map_err(Error::query("tell by which rules it lets in"))?;
        let (loaded, pending): (String, bool) = (row.get(0), row.get(1));
        if pending {
            return Ok(None);
        }
        let gating = Gating::Turned { shut };
        let rewritten = self.reconfigure(Acknowledgers::Kept, gating).await?;
        let rewritten =
            rewritten.ok_or_else(|| Error::Condition("no server runs that could be told".to_owned()))?;
        self.signal(rewritten.postmaster.pid, Signal::Reload).await?;
        // The postmaster reads rules with its configuration, and nobody connects in between.
        let (session, _) = self.read_by_postmaster(None, &loaded, until).await?;
        Ok(Some(session))
    }

    /// Whom the server lets in, as our file says; `None` if it was started without a gate.
    pub(super) async fn gate(&self) -> Option<Gate> {
        if let Some(known) = self.memory().gate {
            return known;
        }
        let read = self.site.gate().await;
        // Whoever has written it meanwhile knows better.
        *self.memory().gate.get_or_insert(read)
    }
}
