//! What people and load balancers ask for beyond what the core needs: walsenders, replay times. Asked for when somebody asks.

use std::time::Duration;

use super::{Postgres, sql};

/// A request over REST must not wait longer for this.
const LIMIT: Duration = Duration::from_secs(1);

/// A connected walsender, in the words of pg_stat_replication.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Walsender {
    /// Role.
    pub usename: String,
    /// `application_name`, which is the member's name.
    pub application_name: String,
    /// Address, `None` through a Unix socket.
    pub client_addr: Option<String>,
    /// `streaming`, `catchup`, ….
    pub state: String,
    /// `async`, `sync`, `quorum`, `potential`.
    pub sync_state: String,
    /// Zero for asynchronous ones.
    pub sync_priority: i32,
}

/// Further facts of a running server.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Details {
    /// Everybody that streams from it.
    pub replication: Vec<Walsender>,
    /// When the last replayed transaction was committed on the primary; `None` on a primary.
    pub replayed_timestamp: Option<String>,
    /// Replay is paused; `None` on a primary.
    pub paused: Option<bool>,
}

impl Postgres {
    /// Asks the server for details on the connection of the probes. `None` if there is none or nothing comes within a second.
    pub async fn details(&self) -> Option<Details> {
        let heartbeat = self.heartbeat.get()?;
        let client = &heartbeat.session.client;
        let asked = async {
            let prepare = async || {
                let (senders, replay) =
                    tokio::try_join!(client.prepare(sql::WALSENDERS), client.prepare(sql::REPLAY))?;
                Ok([senders, replay])
            };
            let [senders, replay] = heartbeat.details.get_or_try_init(prepare).await?;
            tokio::try_join!(client.query(senders, &[]), client.query_one(replay, &[]))
        };
        let (senders, replay) = tokio::time::timeout(LIMIT, asked).await.ok()?.ok()?;
        let replica: bool = replay.get(2);
        Some(Details {
            replication: senders
                .iter()
                .map(|row| Walsender {
                    usename: row.get(0),
                    application_name: row.get(1),
                    client_addr: row.get(2),
                    state: row.get(3),
                    sync_state: row.get(4),
                    sync_priority: row.get(5),
                })
                .collect(),
            replayed_timestamp: replay.get::<_, Option<String>>(0).filter(|_| replica),
            paused: replay.get(1),
        })
    }
}
