//! Asks the servers and etcd, twenty times a second, each on a connection of its own that no fault cuts.

use std::net::{Ipv4Addr, SocketAddrV4};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use surus_ci::client::{self, Route};
use surus_ci::error::{Error, chain};
use surus_ci::lock;
use tokio::task::JoinHandle;
use tokio::time::{sleep, timeout};

use crate::dcs::Etcd;
use crate::seen::{Answer, Seen};

/// Between an answer and the next question.
const PACE: Duration = Duration::from_millis(50);
/// How long an answer may take before the connection is given up.
const PATIENCE: Duration = Duration::from_millis(1500);
/// PostgreSQL's port.
pub const POSTGRES: u16 = 5432;

/// Everything that [`Answer`] holds. The timeline of a primary is that of the position it inserts at: the control file lags behind.
const QUESTION: &str = "SELECT r, CASE WHEN r THEN coalesce(w.received_tli, 0) \
     ELSE ('x' || substr(pg_walfile_name(pg_current_wal_insert_lsn()), 1, 8))::bit(32)::int END, \
     (CASE WHEN r THEN greatest(w.flushed_lsn, pg_last_wal_replay_lsn(), '0/0') ELSE pg_current_wal_lsn() END - '0/0'::pg_lsn)::bigint, \
     CASE WHEN w.status = 'streaming' THEN w.sender_host END, pg_postmaster_start_time() \
     FROM (SELECT pg_is_in_recovery() AS r) AS s LEFT JOIN pg_stat_wal_receiver AS w ON true";

/// What has been seen, shared by those that look and those that judge.
pub type Shared = Arc<Mutex<Seen>>;

/// Asks one member's server from now on.
#[must_use]
pub fn servers(
    runtime: &tokio::runtime::Handle,
    seen: &Shared,
    member: usize,
    address: Ipv4Addr,
) -> JoinHandle<()> {
    let seen = Arc::clone(seen);
    let route = Route::To(SocketAddrV4::new(address, POSTGRES));
    runtime.spawn(async move {
        loop {
            match client::connect(&route).await {
                Ok(client) => loop {
                    let asked = lock(&seen).clock.now();
                    let row = timeout(PATIENCE, client::ask(&client, QUESTION)).await;
                    let answer = match row {
                        Ok(Ok(row)) => answer(&row),
                        Ok(Err(error)) => {
                            lock(&seen).silent(member, true, &chain(&error));
                            break;
                        }
                        Err(_) => {
                            lock(&seen).silent(member, false, "silence");
                            break;
                        }
                    };
                    if let Some(answer) = answer {
                        lock(&seen).answered(member, asked, answer);
                    }
                    sleep(PACE).await;
                },
                Err(error) => lock(&seen).silent(member, refused(&error), &chain(&error)),
            }
            sleep(PACE).await;
        }
    })
}

/// It says itself that it lets nobody in: silence, or an unreachable host, may hide one that goes on.
fn refused(error: &Error) -> bool {
    match error {
        Error::Sql { source, .. } => {
            let text = chain(error);
            source.code().is_some() || text.contains("refused") || text.contains("closed")
        }
        _ => false,
    }
}

fn answer(row: &[String]) -> Option<Answer> {
    let [recovering, timeline, position, upstream, start] = row else {
        return None;
    };
    Some(Answer {
        primary: recovering == "f",
        timeline: timeline.parse().ok()?,
        position: position.parse().ok()?,
        upstream: upstream.parse().ok(),
        start: start.clone(),
    })
}

/// Reads the cluster's keys from now on.
#[must_use]
pub fn keys(runtime: &tokio::runtime::Handle, seen: &Shared, etcd: &Etcd) -> JoinHandle<()> {
    let (seen, etcd) = (Arc::clone(seen), etcd.clone());
    runtime.spawn(async move {
        loop {
            if let Ok(keys) = etcd.keys().await {
                lock(&seen).keys(keys);
            }
            sleep(PACE).await;
        }
    })
}
