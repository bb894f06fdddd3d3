//! The readers of a run: users without rights of their own, who look on every node at what a primary shows.
//!
//! Each look is a connection of its own, so that it passes the rules by which the server lets in. What was seen must be there ever after,
//! if the cluster keeps clients out for as long as no standby has it.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::net::SocketAddrV4;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::task::JoinHandle;
use tokio::time::sleep;
use tokio_postgres::Client;
use tokio_postgres::error::SqlState;

use crate::client::{self, PASSWORD, TABLE};
use crate::error::{Error, Result, chain};
use crate::lock;

/// The user that readers are.
const USER: &str = "surus_ci_reader";
/// The pause between two looks at one node.
const PACE: Duration = Duration::from_millis(20);

/// What all readers saw so far.
#[derive(Clone, Debug, Default)]
pub(crate) struct Sight {
    /// The newest row of each writer at each look.
    pub(crate) rows: BTreeSet<i64>,
    /// How often a primary showed rows.
    pub(crate) looks: u64,
    /// How often a server let no such user in.
    pub(crate) kept_out: u64,
    /// What was in the way last, where it was neither.
    pub(crate) trouble: Option<String>,
}

/// Readers at work, one for each node; they end when this is dropped.
#[derive(Debug)]
pub(crate) struct Readers {
    sight: Arc<Mutex<Sight>>,
    tasks: Vec<JoinHandle<()>>,
}

impl Readers {
    /// Makes their user on the primary.
    ///
    /// # Errors
    /// [`Error::Sql`].
    pub(crate) async fn make_user(primary: &Client) -> Result<()> {
        let sql =
            format!("CREATE ROLE {USER} LOGIN PASSWORD '{PASSWORD}'; GRANT SELECT ON {TABLE} TO {USER}");
        let made = primary.batch_execute(&sql).await;
        made.map_err(Error::sql(|| "create the readers' user"))
    }

    /// Sets them to work. The rows of each writer begin at one of `firsts`, and end where the next one's begin.
    pub(crate) fn start(nodes: impl IntoIterator<Item = SocketAddrV4>, firsts: &[i64]) -> Self {
        let sight = Arc::default();
        let query = query(firsts);
        let start = |at| tokio::spawn(work(at, query.clone(), Arc::clone(&sight)));
        let tasks = nodes.into_iter().map(start).collect();
        Self { sight, tasks }
    }

    /// What they saw so far.
    pub(crate) fn sight(&self) -> Sight {
        lock(&self.sight).clone()
    }
}

impl Drop for Readers {
    fn drop(&mut self) {
        self.tasks.iter().for_each(JoinHandle::abort);
    }
}

/// Asks whether the server is in recovery, and for the newest row of each writer.
fn query(firsts: &[i64]) -> String {
    let mut sql = String::from("SELECT pg_is_in_recovery()");
    for (place, first) in firsts.iter().enumerate() {
        let next = firsts.get(place + 1).map_or(i64::MAX, |next| *next);
        let _ = write!(
            sql,
            ", (SELECT max(id) FROM {TABLE} WHERE {first} <= id AND id < {next})"
        );
    }
    sql
}

async fn work(at: SocketAddrV4, query: String, sight: Arc<Mutex<Sight>>) {
    loop {
        match look(at, &query).await {
            Ok(rows) if rows.is_empty() => {}
            Ok(rows) => {
                let mut sight = lock(&sight);
                sight.looks += 1;
                sight.rows.extend(rows);
            }
            Err(error) if refused(&error) => lock(&sight).kept_out += 1,
            Err(error) => lock(&sight).trouble = Some(chain(&error)),
        }
        sleep(PACE).await;
    }
}

/// What the server shows, if it is a primary.
async fn look(at: SocketAddrV4, query: &str) -> Result<Vec<i64>> {
    let client = client::connect_as(USER, at).await?;
    let row = client::ask(&client, query).await?;
    let Some((recovering, newest)) = row.split_first() else {
        return Ok(Vec::new());
    };
    let shown = newest.iter().filter(|_| recovering == "f");
    Ok(shown.filter_map(|id| id.parse().ok()).collect())
}

/// No rule lets this user in.
fn refused(error: &Error) -> bool {
    matches!(error, Error::Sql { source, .. } if source.code() == Some(&SqlState::INVALID_AUTHORIZATION_SPECIFICATION))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_writer_is_asked_for_by_its_own_rows() {
        assert_eq!(
            query(&[10, 20]),
            "SELECT pg_is_in_recovery(), (SELECT max(id) FROM surus_ci_writes WHERE 10 <= id AND id < 20), \
             (SELECT max(id) FROM surus_ci_writes WHERE 20 <= id AND id < 9223372036854775807)"
        );
    }
}
