//! Parting from clients before a stop that was planned: they are told through etcd, and the transactions that are under way may end.
//!
//! Routers let new sessions wait from that word on, so within a tenth of a second nobody comes any more through one, and a client that opens
//! a session for each transaction loses none. Clients that keep their session are served meanwhile, so it costs them no outage. It is bounded,
//! it is never done before a stop for safety's sake, and what cannot be said or asked is no reason to wait.

use std::time::Duration;

use surus_core::types::MonoTime;

use super::{BoxFuture, Error, Postgres, sql};

/// How long the whole of it may take.
const LIMIT: Duration = Duration::from_millis(600);
/// How long the word may take.
const WORD_LIMIT: Duration = Duration::from_millis(200);
/// For sessions that were let through just before the word: they are not seen before they have authenticated themselves.
const GRACE: Duration = Duration::from_millis(30);
/// Between two looks at who is left.
const LOOK: Duration = Duration::from_millis(5);

/// Tells whoever leads clients to this server that it is about to stop.
pub trait Herald: Send + Sync + 'static {
    /// Says so; returns whether it has been said.
    fn stopping(&self) -> BoxFuture<'_, bool>;
}

impl Postgres {
    /// From now on `herald` says when the server is about to stop as planned.
    pub fn announce_with(&self, herald: std::sync::Arc<dyn Herald>) {
        *self
            .herald
            .write()
            .unwrap_or_else(std::sync::PoisonError::into_inner) = Some(herald);
    }

    /// Parts from clients; ends by `until` at the latest.
    pub(super) async fn part(&self, until: MonoTime) {
        let herald = self
            .herald
            .read()
            .unwrap_or_else(std::sync::PoisonError::into_inner)
            .clone();
        let Some(herald) = herald else { return };
        let limit = LIMIT.min(until.since(self.clock.now()) / 2);
        match tokio::time::timeout(limit, self.part_by(herald.as_ref())).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => {
                tracing::debug!(error = %error.chain(), "clients are not waited for before the stop");
            }
            Err(_) => tracing::info!("some transactions did not end in time; the stop ends them"),
        }
    }

    async fn part_by(&self, herald: &dyn Herald) -> Result<(), Error> {
        let session = self.connect("Surus stop", LIMIT).await?;
        let said = tokio::time::timeout(WORD_LIMIT, herald.stopping()).await;
        if said != Ok(true) {
            tracing::debug!("could not say that the server is about to stop");
            return Ok(());
        }
        let began = self.clock.now();
        tokio::time::sleep(GRACE).await;
        loop {
            let since = i32::try_from(self.clock.now().since(began).as_millis()).unwrap_or(i32::MAX);
            let row = session
                .client
                .query_one(sql::UNFINISHED, &[&since])
                .await
                .map_err(Error::query("tell which transactions are under way"))?;
            if row.get::<_, i32>(0) == 0 {
                return Ok(());
            }
            tokio::time::sleep(LOOK).await;
        }
    }
}
