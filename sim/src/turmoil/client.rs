//! A client: writes values that no other write has, over PostgreSQL's protocol, to whichever member takes them.

use std::io;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use surus_scenarios::Route;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio_postgres::NoTls;

use super::agent::REST;
use super::hub::Hub;
use super::net::Machine;
use super::postgres::{PORT, READ, WRITE, register};
use super::process::Process;
use super::router;
use crate::clock::{MS, SEC, Time};
use crate::record::{Fate, Seen};

/// A client waits so long for a connection.
const CONNECT: Duration = Duration::from_secs(1);
/// And so long for an answer.
const PATIENCE: Duration = Duration::from_secs(2);

/// A client that runs.
#[derive(Debug)]
pub struct Client {
    pace: Arc<Mutex<Time>>,
}

impl Client {
    /// Starts the client of this number, which goes through the router of that name, or else looks among the members itself.
    #[must_use]
    pub fn start(hub: &Arc<Hub>, number: usize, machine: Machine, pace: Time, route: &Route) -> Self {
        let reads = route.reads;
        let process = Process::new(Arc::clone(&hub.net), machine, format!("client {number}"));
        let pace = Arc::new(Mutex::new(pace));
        let mut session = Session {
            hub: Arc::clone(hub),
            number,
            process: process.clone(),
            at: number,
            via: route.via.as_ref().map(|router| router.as_str().to_owned()),
            link: None,
        };
        let every = Arc::clone(&pace);
        process.spawn(Box::pin(async move {
            let mut count: u64 = 0;
            loop {
                let wait = *every.lock().unwrap_or_else(PoisonError::into_inner);
                if wait == Time::MAX {
                    tokio::time::sleep(Duration::from_secs(1)).await;
                    continue;
                }
                tokio::time::sleep(Duration::from_nanos(wait)).await;
                count += 1;
                // Unique among clients, and spread over the registers.
                let value = (session.number as u64 + 1) << 40 | count;
                session.write(value).await;
                if reads && count.is_multiple_of(4) {
                    session.read(register(count)).await;
                }
            }
        }));
        Self { pace }
    }

    /// Writes at another pace from now on; `Time::MAX` is not at all.
    pub fn set_pace(&self, pace: Time) {
        *self.pace.lock().unwrap_or_else(PoisonError::into_inner) = pace.max(MS);
    }
}

struct Session {
    hub: Arc<Hub>,
    number: usize,
    process: Process,
    /// The member that is asked.
    at: usize,
    /// The router that is gone through.
    via: Option<String>,
    link: Option<(tokio_postgres::Client, tokio::task::AbortHandle)>,
}

impl Session {
    async fn connect(&mut self) -> io::Result<()> {
        let member = &self.hub.hosts[self.at % self.hub.hosts.len()].name;
        let (host, port) = match &self.via {
            Some(router) => (router, router::PORT),
            None => (member, PORT),
        };
        let stream = Arc::clone(&self.hub.net)
            .dial(self.process.machine(), host, port)
            .await?;
        let mut config = tokio_postgres::Config::new();
        config.user("app").dbname("app");
        let (client, connection) = config
            .connect_raw(stream, NoTls)
            .await
            .map_err(io::Error::other)?;
        let task = self.process.spawn(Box::pin(async move {
            // How it ended is told by the statement under way.
            let _ = connection.await;
        }));
        self.link = Some((client, task));
        Ok(())
    }

    fn leave(&mut self) {
        if let Some((_, task)) = self.link.take() {
            task.abort();
        }
        self.at = (self.at + 1) % self.hub.hosts.len();
    }

    /// Runs a statement; its first column.
    async fn run(&mut self, statement: &str) -> (Fate, Option<String>) {
        if self.link.as_ref().is_none_or(|(client, _)| client.is_closed()) {
            let connected = tokio::time::timeout(CONNECT, self.connect()).await;
            if !matches!(connected, Ok(Ok(()))) {
                self.leave();
                return (Fate::Failed, None);
            }
        }
        let Some((client, _)) = &self.link else {
            return (Fate::Failed, None);
        };
        let answered = tokio::time::timeout(PATIENCE, client.simple_query(statement)).await;
        match answered {
            Ok(Ok(messages)) => {
                let value = messages.iter().find_map(|message| match message {
                    tokio_postgres::SimpleQueryMessage::Row(row) => row.get(0).map(str::to_owned),
                    _ => None,
                });
                (Fate::Ok, value)
            }
            Ok(Err(error)) => {
                // What a standby, or a server that starts or stops, refuses was not done.
                let code = error.code().map(tokio_postgres::error::SqlState::code);
                let failed = matches!(code, Some("25006" | "57P03" | "53300"));
                self.leave();
                (if failed { Fate::Failed } else { Fate::Unknown }, None)
            }
            Err(_) => {
                self.leave();
                (Fate::Unknown, None)
            }
        }
    }

    async fn write(&mut self, value: u64) {
        let (client, key) = (self.number, register(value));
        self.hub.see(None, Seen::WriteAsked { client, key, value });
        let (fate, _) = self.run(&format!("{WRITE}{value}")).await;
        if fate == Fate::Ok {
            self.hub.acked().insert(value);
        }
        let seen = Seen::WriteEnded {
            client,
            key,
            value,
            fate,
        };
        self.hub.see(None, seen);
    }

    async fn read(&mut self, key: u32) {
        let client = self.number;
        self.hub.see(None, Seen::ReadAsked { client, key });
        let (fate, value) = self.run(&format!("{READ}{key}")).await;
        let seen = Seen::ReadEnded {
            client,
            key,
            value: value.and_then(|value| value.parse().ok()),
            fate,
        };
        self.hub.see(None, seen);
    }
}

/// A person posts to a member's REST API.
///
/// # Panics
/// In the world, where the member says that it does not understand: a world that speaks wrongly has done nothing.
pub fn post(hub: &Arc<Hub>, from: Machine, host: usize, path: &str, body: String) {
    let process = Process::new(Arc::clone(&hub.net), from, "person");
    let name = hub.hosts[host].name.clone();
    let dialling = Arc::clone(&hub.net).dial(from, &name, REST);
    let request = format!(
        "POST /{path} HTTP/1.1\r\nHost: {name}\r\nConnection: close\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    );
    process.spawn(Box::pin(async move {
        let exchange = async {
            let mut stream = dialling.await?;
            stream.write_all(request.as_bytes()).await?;
            let mut answer = Vec::new();
            stream.read_to_end(&mut answer).await?;
            Ok::<_, io::Error>(answer)
        };
        // A person who hears nothing goes away.
        if let Ok(Ok(answer)) = tokio::time::timeout(Duration::from_secs(60), exchange).await {
            let understood = !answer.starts_with(b"HTTP/1.1 400");
            assert!(understood, "{request}\n{}", String::from_utf8_lossy(&answer));
        }
    }));
}

/// How often a client writes where the story does not say: many processes share one core here.
pub const PACE: Time = SEC / 4;
