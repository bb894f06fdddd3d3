//! Connections of the agent to its own server, and connection strings to other members.
//!
//! The agent connects where the running server says it listens (`postmaster.pid`), through the Unix socket and TCP, in the order
//! of `use_unix_socket`: a pg_hba.conf that shuts one of the two still leaves the other.

use std::fmt::Write as _;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use surus_core::action::Upstream;
use tokio::time::Instant;
use tokio_postgres::error::SqlState;
use tokio_postgres::{Client, NoTls, Statement};

use super::site::{Address, PidFile};
use super::walsender::ToWalsender;
use super::{Error, Postgres, text};
use crate::config::settings::{Credentials, PostgresSettings};
use crate::net::{Io, Stream};
use crate::task::Owned;

/// Connecting to the own machine takes 3 ms. Longer than this, and the server does not answer.
pub(super) const CONNECT_LIMIT: Duration = Duration::from_millis(1500);

/// A connection. Its task ends with it.
#[derive(Debug)]
pub(super) struct Session {
    pub(super) client: Client,
    _task: Owned,
}

/// The connection that probes use, with what was learnt when it was made.
#[derive(Debug)]
pub(super) struct Heartbeat {
    pub(super) session: Session,
    pub(super) query: Statement,
    /// What [`details`](super::Postgres::details) asks, from its first time on.
    pub(super) details: tokio::sync::OnceCell<[Statement; 2]>,
    /// The postmaster it leads to.
    pub(super) pid: u32,
    /// There may be a marker of unfinished work beside the data directory.
    pub(super) marked: std::sync::atomic::AtomicBool,
    /// When the server was last asked for its timeline over a replication connection.
    pub(super) asked_timeline: Mutex<Option<Instant>>,
}

/// Between two questions for the timeline that a server without a walreceiver replays: as often as PostgreSQL itself tries again to stream.
const ASKED_AGAIN: Duration = Duration::from_secs(5);

impl Heartbeat {
    /// It is time to ask the server for its timeline; it counts as asked.
    pub(super) fn asks_again(&self) -> bool {
        let mut asked = self.asked_timeline.lock().unwrap_or_else(PoisonError::into_inner);
        let due = asked.is_none_or(|asked| ASKED_AGAIN <= asked.elapsed());
        if due {
            *asked = Some(Instant::now());
        }
        due
    }
}

/// What a connection is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Use {
    /// It may write, and does not wait for standbys.
    Work,
    /// It writes nothing, and sees `synchronous_commit` as clients have it.
    Look,
}

/// A connection for a few quick questions: that of the probes where it is alive, which saves the time of authentication.
#[derive(Debug)]
pub(super) enum Link {
    Shared(Arc<Heartbeat>),
    Own(Session),
}

impl Link {
    pub(super) fn client(&self) -> &Client {
        match self {
            Self::Shared(heartbeat) => &heartbeat.session.client,
            Self::Own(session) => &session.client,
        }
    }
}

/// Holds the heartbeat connection between probes.
#[derive(Debug, Default)]
pub(super) struct HeartbeatSlot(std::sync::Mutex<Option<Arc<Heartbeat>>>);

impl HeartbeatSlot {
    pub(super) fn get(&self) -> Option<Arc<Heartbeat>> {
        let slot = self.0.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        slot.clone()
            .filter(|heartbeat| !heartbeat.session.client.is_closed())
    }

    pub(super) fn set(&self, heartbeat: Option<Arc<Heartbeat>>) {
        *self.0.lock().unwrap_or_else(std::sync::PoisonError::into_inner) = heartbeat;
    }
}

impl Postgres {
    /// Connects as superuser. `limit` is PostgreSQL's own limit on each statement; zero for none.
    pub(super) async fn connect(&self, name: &str, limit: Duration) -> Result<Session, Error> {
        let settings = self.settings();
        let file = self.site.look().await.pid_file.ok_or_else(|| {
            Error::Condition(format!(
                "no server runs in {} (no postmaster.pid)",
                settings.data_dir.display()
            ))
        })?;
        self.open(&settings, &file, name, limit, Use::Work).await
    }

    /// Connects as superuser to the server of a pid file.
    pub(super) async fn open(
        &self,
        settings: &PostgresSettings,
        file: &PidFile,
        name: &str,
        limit: Duration,
        purpose: Use,
    ) -> Result<Session, Error> {
        let commit = match purpose {
            Use::Work => "-c synchronous_commit=local",
            Use::Look => "",
        };
        let mut config = tokio_postgres::Config::new();
        config
            .user(&settings.superuser.username)
            .dbname(&settings.database)
            .application_name(name)
            .ssl_mode(tokio_postgres::config::SslMode::Disable)
            .options(format!(
                "-c statement_timeout={} -c lock_timeout=0 -c search_path=pg_catalog \
             -c log_statement=none -c log_min_duration_statement=-1 {commit}",
                limit.as_millis()
            ));
        if let Some(password) = &settings.superuser.password {
            config.password(password);
        }
        self.reach(settings, file, &config, |stream| stream).await
    }

    /// Connects to the walsender of the server of a pid file, as the replicas do.
    pub(super) async fn open_walsender(
        &self,
        settings: &PostgresSettings,
        file: &PidFile,
        name: &str,
    ) -> Result<Session, Error> {
        let mut config = tokio_postgres::Config::new();
        config
            .user(&settings.replication.username)
            .application_name(name)
            .ssl_mode(tokio_postgres::config::SslMode::Disable);
        if let Some(password) = &settings.replication.password {
            config.password(password);
        }
        self.reach(settings, file, &config, ToWalsender::new).await
    }

    /// Goes the ways to the server of a pid file, one after the other; `dress` makes of a stream what the session runs over.
    async fn reach<S: Io + 'static>(
        &self,
        settings: &PostgresSettings,
        file: &PidFile,
        config: &tokio_postgres::Config,
        dress: fn(Stream) -> S,
    ) -> Result<Session, Error> {
        let port = file.port.unwrap_or(settings.port);
        let listen = file.listen.as_deref().and_then(|listen| match listen {
            "*" | "0.0.0.0" => Some("127.0.0.1"),
            "::" => Some("::1"),
            "" => None,
            other => Some(other),
        });
        let tcp = listen.map(Way::Tcp);
        let socket = file
            .socket_dir
            .as_ref()
            .map(|dir| Way::Unix(dir.join(format!(".s.PGSQL.{port}"))));
        let ways = if settings.use_unix_socket {
            [socket, tcp]
        } else {
            [tcp, socket]
        };
        let attempts = async {
            let mut first = None;
            for way in ways.into_iter().flatten() {
                let dialled = match &way {
                    Way::Tcp(host) => self.dial.dial(host, port).await,
                    Way::Unix(path) => self.dial.dial_unix(path).await,
                };
                let stream = match dialled {
                    Ok(stream) => stream,
                    Err(source) => {
                        first = first.or(Some(Error::Unreachable(source)));
                        continue;
                    }
                };
                match config.connect_raw(dress(stream), NoTls).await {
                    Ok(connected) => return Ok(connected),
                    Err(error) => {
                        let now = error.code() == Some(&SqlState::CANNOT_CONNECT_NOW);
                        let error = Error::query("take a connection of the agent")(error);
                        if now {
                            // The server is there and says that it takes nobody now: the other way leads to the same answer.
                            return Err(error);
                        }
                        first = first.or(Some(error));
                    }
                }
            }
            Err(first.unwrap_or_else(|| {
                Error::Condition(
                    "the server listens nowhere; set postgresql.listen or unix_socket_directories".to_owned(),
                )
            }))
        };
        let connected = tokio::time::timeout(CONNECT_LIMIT, attempts)
            .await
            .map_err(|_| Error::Timeout {
                what: "connecting to the local server".to_owned(),
                limit: CONNECT_LIMIT,
            })?;
        let (client, connection) = connected?;
        let task = self.tasks.spawn(Box::pin(async move {
            // What went wrong with the connection is told by the query that needed it.
            let _ = connection.await;
        }));
        Ok(Session {
            client,
            _task: Owned(task),
        })
    }
}

/// A way to the own server.
enum Way<'a> {
    Tcp(&'a str),
    Unix(PathBuf),
}

/// Host and port of a `conn_url`.
///
/// # Errors
/// When the URL names no host.
pub(super) fn address(upstream: &Upstream) -> Result<Address, Error> {
    let wrong = || {
        Error::Condition(format!(
            "the conn_url {:?} of member {} names no host and port",
            upstream.conn_url, upstream.name
        ))
    };
    let (_, rest) = upstream.conn_url.split_once("://").ok_or_else(wrong)?;
    let authority = rest.split(['/', '?']).next().unwrap_or_default();
    let authority = authority.rsplit_once('@').map_or(authority, |(_, host)| host);
    let (host, port) = if let Some(bracketed) = authority.strip_prefix('[') {
        let (host, port) = bracketed.split_once(']').ok_or_else(wrong)?;
        (host, port.strip_prefix(':'))
    } else {
        match authority.rsplit_once(':') {
            Some((host, port)) => (host, Some(port)),
            None => (authority, None),
        }
    };
    let port = match port {
        Some(port) => port.parse().map_err(|_| wrong())?,
        None => 5432,
    };
    if host.is_empty() {
        return Err(wrong());
    }
    Ok(Address {
        host: host.to_owned(),
        port,
    })
}

/// A libpq connection string to a member; passwords stay in the password file.
pub(super) fn conninfo(
    settings: &PostgresSettings,
    credentials: &Credentials,
    address: &Address,
    further: &[(&str, &str)],
) -> String {
    let mut pairs: Vec<(String, String)> = vec![
        ("user".to_owned(), credentials.username.clone()),
        ("passfile".to_owned(), text(&settings.pgpass)),
        ("host".to_owned(), address.host.clone()),
        ("port".to_owned(), address.port.to_string()),
        ("sslmode".to_owned(), "prefer".to_owned()),
        ("gssencmode".to_owned(), "prefer".to_owned()),
        ("channel_binding".to_owned(), "prefer".to_owned()),
    ];
    for (key, value) in &credentials.options {
        pairs.retain(|(known, _)| known != key);
        pairs.push((key.clone(), value.clone()));
    }
    for (key, value) in further {
        pairs.retain(|(known, _)| known != key);
        pairs.push(((*key).to_owned(), (*value).to_owned()));
    }
    let mut text = String::new();
    for (key, value) in pairs {
        if !text.is_empty() {
            text.push(' ');
        }
        // Writing to a String cannot fail.
        let _ = write!(text, "{key}={}", quoted(&value));
    }
    text
}

fn quoted(value: &str) -> String {
    let plain = !value.is_empty()
        && value
            .chars()
            .all(|character| !character.is_whitespace() && character != '\'' && character != '\\');
    if plain {
        value.to_owned()
    } else {
        format!("'{}'", value.replace('\\', "\\\\").replace('\'', "\\'"))
    }
}

/// `host:port` in a connection string, `None` if it names no host.
pub(super) fn host_and_port(conninfo: &str) -> Option<String> {
    let value = |key: &str| -> Option<String> {
        let start = conninfo
            .match_indices(key)
            .find(|(at, _)| {
                let before = conninfo[..*at].chars().next_back();
                before.is_none_or(char::is_whitespace) && conninfo[*at + key.len()..].starts_with('=')
            })?
            .0;
        let rest = &conninfo[start + key.len() + 1..];
        let value = match rest.strip_prefix('\'') {
            Some(rest) => rest.split('\'').next()?,
            None => rest.split_whitespace().next()?,
        };
        (!value.is_empty()).then(|| value.to_owned())
    };
    let host = value("host").or_else(|| value("hostaddr"))?;
    let port = value("port").unwrap_or_else(|| "5432".to_owned());
    Some(if host.contains(':') {
        format!("[{host}]:{port}")
    } else {
        format!("{host}:{port}")
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn upstream(conn_url: &str) -> Upstream {
        Upstream {
            name: "n2".into(),
            conn_url: conn_url.to_owned(),
            slot: None,
        }
    }

    #[test]
    fn addresses_come_out_of_urls() {
        let read = |url: &str| address(&upstream(url)).ok().map(|found| (found.host, found.port));
        assert_eq!(
            read("postgres://10.0.0.2:5433/postgres"),
            Some(("10.0.0.2".to_owned(), 5433))
        );
        assert_eq!(
            read("postgres://db.example"),
            Some(("db.example".to_owned(), 5432))
        );
        assert_eq!(
            read("postgres://[::1]:6000/postgres?x=y"),
            Some(("::1".to_owned(), 6000))
        );
        assert_eq!(read("postgres:///postgres"), None);
        assert_eq!(read("nonsense"), None);
        assert_eq!(read("postgres://host:port/postgres"), None);
    }

    #[test]
    fn upstreams_are_read_from_connection_strings() {
        let read = |text: &str| host_and_port(text);
        assert_eq!(
            read("user=a hostaddr=1.1.1.1 host=b port=7").as_deref(),
            Some("b:7")
        );
        assert_eq!(read("host='::1' dbname=x").as_deref(), Some("[::1]:5432"));
        assert_eq!(read(""), None);
        assert_eq!(quoted("it's"), "'it\\'s'");
    }
}
