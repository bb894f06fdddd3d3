//! The clients of a run: each writes rows, one after another, and remembers every write that was acknowledged to it.
//!
//! A write returns the address of the server that took it and the timeline it inserts on, read from the WAL position and not from the
//! control file, which lags behind after a promotion. An acknowledgement is timed when the client has it. A write without one is
//! *unknown*: it counts neither as kept nor as lost.

use std::net::{IpAddr, Ipv4Addr, SocketAddr, SocketAddrV4};
use std::ops::Range;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::net::TcpSocket;
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep, timeout};
use tokio_postgres::config::TargetSessionAttrs;
use tokio_postgres::{Client, Config, NoTls, SimpleQueryMessage};

use crate::error::{Error, Result};
use crate::history::{Ack, Log, Look, Trouble};
use crate::http;
use crate::libpq;
use crate::lock;

/// The table that all clients write to.
pub const TABLE: &str = "surus_ci_writes";
/// The user that clients are, where nothing else is said.
const SUPERUSER: &str = "postgres";
/// The password of every user: this cluster lives on loopback and for minutes.
pub const PASSWORD: &str = "elephant";
/// How long a connection may take to come about before the client tries again.
const CONNECT: Duration = Duration::from_millis(500);
/// How long a write may take before the client gives it up and connects anew.
const WRITE: Duration = Duration::from_millis(1000);
/// The pause after a failure, of a client that looks for the primary as fast as it may.
pub const PAUSE: Duration = Duration::from_millis(20);

/// Where a client connects.
#[derive(Clone, Debug)]
pub enum Route {
    /// To one address, whoever is there.
    To(SocketAddrV4),
    /// To whichever of these accepts writes, as libpq's `target_session_attrs=read-write` does.
    Primary(Vec<SocketAddrV4>),
}

impl Route {
    fn addresses(&self) -> &[SocketAddrV4] {
        match self {
            Self::To(at) => std::slice::from_ref(at),
            Self::Primary(all) => all,
        }
    }
}

/// How a client treats its connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Habit {
    /// Keeps it as long as its writes succeed.
    Keep,
    /// Keeps it as long as it lives, also when the server refuses to write: the client of one node.
    Stay,
    /// Opens a new one for every write.
    Renew,
}

/// One client to be.
#[derive(Clone, Debug)]
pub struct Plan {
    /// What the report calls it.
    pub name: String,
    /// Where it connects.
    pub route: Route,
    /// How it treats its connection.
    pub habit: Habit,
    /// The pause between two writes.
    pub pace: Duration,
    /// The pause after a connection that did not come about.
    pub retry: Duration,
    /// Its first row has this number; the ranges of clients must not meet.
    pub first: i64,
    /// Its connections come from these ports, so that a firewall can tell it from others on this machine; else from any.
    pub ports: Option<Range<u16>>,
    /// It speaks through this `psql`, so through libpq with a string of all its hosts.
    pub psql: Option<PathBuf>,
}

fn settings(at: &SocketAddrV4, user: &str) -> Config {
    let mut config = Config::new();
    config
        .user(user)
        .password(PASSWORD)
        .dbname("postgres")
        .application_name("surus-ci");
    if user == SUPERUSER {
        // Refusals by replicas are what these clients are for; the servers' logs are for the agents' doings.
        config.options("-c log_min_messages=fatal");
    }
    config.connect_timeout(CONNECT).tcp_user_timeout(2 * WRITE);
    config
        .hostaddr(IpAddr::V4(*at.ip()))
        .host(at.ip().to_string())
        .port(at.port());
    config
}

/// Opens a connection.
pub async fn connect(route: &Route) -> Result<Client> {
    in_turn(route, None).await
}

/// Opens a connection to one address as this user.
///
/// # Errors
/// [`Error::Sql`] if the server refuses it, [`Error::Late`] if nothing is heard.
pub async fn connect_as(user: &str, at: SocketAddrV4) -> Result<Client> {
    let opened = timeout(2 * CONNECT, open(at, user, false)).await;
    opened.unwrap_or_else(|_| Err(silent(at)))
}

fn silent(at: SocketAddrV4) -> Error {
    Error::Late {
        what: format!("a connection to {at}"),
        limit: 2 * CONNECT,
        last: "silence".into(),
    }
}

/// Tries one address after the other as libpq does: within [`CONNECT`] each for the connection, and as long again for the log-in, so that
/// a host that stands still keeps nobody from the next.
///
/// Connections come from any port, or from these in turn: the number counts the attempts, so that a port rests before it is used again.
async fn in_turn(route: &Route, mut from: Option<(&Range<u16>, &mut u16)>) -> Result<Client> {
    let writable = matches!(route, Route::Primary(_));
    let mut last = Error::Unable("no address to connect to".into());
    for at in route.addresses() {
        let attempt = async {
            let Some((ports, turn)) = &mut from else {
                return open(*at, SUPERUSER, writable).await;
            };
            let port = ports.start + **turn % (ports.end - ports.start).max(1);
            **turn = turn.wrapping_add(1);
            open_from(*at, port, writable).await
        };
        match timeout(2 * CONNECT, attempt).await {
            Ok(Ok(client)) => return Ok(client),
            Ok(Err(error)) => last = error,
            Err(_) => last = silent(*at),
        }
    }
    Err(last)
}

async fn open(at: SocketAddrV4, user: &str, writable: bool) -> Result<Client> {
    let mut config = settings(&at, user);
    if writable {
        config.target_session_attrs(TargetSessionAttrs::ReadWrite);
    }
    let opened = config.connect(NoTls).await;
    let (client, connection) = opened.map_err(Error::sql(|| format!("connect to {at}")))?;
    tokio::spawn(async move {
        // The client half reports what happened to its own requests.
        let _ = connection.await;
    });
    Ok(client)
}

async fn open_from(at: SocketAddrV4, port: u16, writable: bool) -> Result<Client> {
    let doing = || format!("connect to {at} from port {port}");
    let stream = async {
        let socket = TcpSocket::new_v4()?;
        socket.set_reuseaddr(true)?;
        socket.bind(SocketAddr::from((Ipv4Addr::UNSPECIFIED, port)))?;
        socket.connect(at.into()).await
    };
    let stream = match timeout(CONNECT, stream).await {
        Ok(stream) => stream.map_err(Error::io(doing))?,
        Err(_) => {
            return Err(Error::Late {
                what: format!("a connection to {at}"),
                limit: CONNECT,
                last: "silence".into(),
            });
        }
    };
    stream.set_nodelay(true).map_err(Error::io(doing))?;
    let (client, connection) = settings(&at, SUPERUSER)
        .connect_raw(stream, NoTls)
        .await
        .map_err(Error::sql(doing))?;
    tokio::spawn(async move {
        let _ = connection.await;
    });
    if writable && ask(&client, "SHOW transaction_read_only").await? != ["off"] {
        return Err(Error::Unmet(format!("{at} does not accept writes")));
    }
    Ok(client)
}

/// Runs one statement that answers with one row of text.
pub async fn ask(client: &Client, sql: &str) -> Result<Vec<String>> {
    let answer = timeout(5 * WRITE, client.simple_query(sql)).await;
    let answer = answer.map_err(|_| Error::Late {
        what: format!("`{sql}`"),
        limit: 5 * WRITE,
        last: "silence".into(),
    })?;
    let row = answer
        .map_err(Error::sql(|| format!("run `{sql}`")))?
        .into_iter()
        .find_map(|message| match message {
            SimpleQueryMessage::Row(row) => Some(row),
            _ => None,
        });
    let row = row.ok_or_else(|| Error::Unmet(format!("`{sql}` gave no row")))?;
    Ok((0..row.len())
        .map(|i| row.get(i).unwrap_or_default().to_owned())
        .collect())
}

/// Which server is at the other end of a new connection, and whether it is in recovery.
pub async fn look(at: SocketAddrV4) -> std::result::Result<(Ipv4Addr, bool), String> {
    let look = async {
        let client = connect(&Route::To(at)).await?;
        ask(&client, "SELECT host(inet_server_addr()), pg_is_in_recovery()").await
    };
    let row = look.await.map_err(|error| crate::error::chain(&error))?;
    match &row[..] {
        [address, recovering] => Ok((
            address.parse().map_err(|_| format!("odd address {address}"))?,
            recovering == "t",
        )),
        _ => Err("odd answer".into()),
    }
}

/// A client at work.
#[derive(Debug)]
pub struct Writer {
    plan: Plan,
    /// Nanoseconds between two writes; the greatest number is none at all.
    pace: Arc<AtomicU64>,
    log: Arc<Mutex<Log>>,
    task: JoinHandle<()>,
}

impl Writer {
    /// Sets a client to work.
    pub fn start(plan: Plan) -> Self {
        let log = Arc::new(Mutex::new(Log {
            name: plan.name.clone(),
            ..Log::default()
        }));
        let pace = Arc::new(AtomicU64::new(nanos(plan.pace)));
        let task = tokio::spawn(work(plan.clone(), Arc::clone(&pace), Arc::clone(&log)));
        Self {
            plan,
            pace,
            log,
            task,
        }
    }

    /// Pauses so long between two writes from now on; [`Duration::MAX`] is to write no more.
    pub fn set_pace(&self, pace: Duration) {
        self.pace.store(nanos(pace), Ordering::Relaxed);
    }

    /// Looks at what it knows so far.
    pub fn look<T>(&self, look: impl FnOnce(&Log) -> T) -> T {
        look(&lock(&self.log))
    }

    /// The name from its plan.
    pub fn name(&self) -> &str {
        &self.plan.name
    }

    /// The newest acknowledgement so far.
    pub fn last(&self) -> Option<Ack> {
        lock(&self.log).acks.last().cloned()
    }

    /// Ends the client and returns what it knows.
    pub async fn stop(self) -> Log {
        self.task.abort();
        let _ = self.task.await;
        std::mem::take(&mut *lock(&self.log))
    }
}

fn nanos(pace: Duration) -> u64 {
    u64::try_from(pace.as_nanos()).unwrap_or(u64::MAX)
}

/// Sleeps for the pace; one that is changed meanwhile counts within a tenth of a second.
async fn rest(pace: &AtomicU64) {
    const NAP: Duration = Duration::from_millis(100);
    let began = Instant::now();
    loop {
        let left = Duration::from_nanos(pace.load(Ordering::Relaxed)).saturating_sub(began.elapsed());
        if left.is_zero() {
            return;
        }
        sleep(left.min(NAP)).await;
    }
}

/// A connection, whoever made it.
enum Session {
    Own(Client),
    Libpq(libpq::Session),
}

impl Session {
    async fn open(plan: &Plan, turn: &mut u16) -> Result<Self> {
        if let Some(psql) = &plan.psql {
            let session = libpq::Session::open(psql, plan.route.addresses(), PASSWORD).await?;
            return Ok(Self::Libpq(session));
        }
        let from = plan.ports.as_ref().map(|ports| (ports, turn));
        Ok(Self::Own(in_turn(&plan.route, from).await?))
    }

    async fn ask(&mut self, sql: &str) -> Result<Vec<String>> {
        match self {
            Self::Own(client) => ask(client, sql).await,
            Self::Libpq(session) => session.ask(sql).await,
        }
    }

    /// It outlives an error.
    fn lasts(&self) -> bool {
        matches!(self, Self::Own(client) if !client.is_closed())
    }
}

async fn work(plan: Plan, pace: Arc<AtomicU64>, log: Arc<Mutex<Log>>) {
    let mut id = plan.first;
    let mut turn = 0;
    let mut open: Option<Session> = None;
    loop {
        let mut session = match open.take() {
            Some(session) => session,
            None => match Session::open(&plan, &mut turn).await {
                Ok(session) => {
                    lock(&log).connections += 1;
                    session
                }
                Err(error) => {
                    note(&log, &error);
                    sleep(plan.retry).await;
                    continue;
                }
            },
        };
        let sql = format!(
            "INSERT INTO {TABLE} (id, client) VALUES ({id}, '{}') RETURNING host(inet_server_addr()), \
             ('x' || substr(pg_walfile_name(pg_current_wal_insert_lsn()), 1, 8))::bit(32)::int",
            plan.name
        );
        id += 1;
        match timeout(WRITE, session.ask(&sql)).await {
            Ok(Ok(row)) => {
                let acked = Instant::now();
                if let (Some(Ok(node)), Some(Ok(timeline))) = (
                    row.first().map(|text| text.parse()),
                    row.get(1).map(|text| text.parse()),
                ) {
                    lock(&log).acks.push(Ack {
                        id: id - 1,
                        acked,
                        node,
                        timeline,
                    });
                }
                if plan.habit != Habit::Renew {
                    open = Some(session);
                }
                rest(&pace).await;
            }
            Ok(Err(error)) => {
                note(&log, &error);
                if plan.habit == Habit::Stay && session.lasts() {
                    open = Some(session);
                }
                sleep(PAUSE).await;
            }
            Err(_) => note(
                &log,
                &Error::Late {
                    what: "an acknowledgement".into(),
                    limit: WRITE,
                    last: "silence".into(),
                },
            ),
        }
    }
}

fn note(log: &Mutex<Log>, error: &Error) {
    lock(log).troubles.push(Trouble {
        at: Instant::now(),
        what: crate::error::chain(error),
    });
}

/// A client that asks, through a new connection each time, who serves it, and looks at HAProxy's statistics.
#[derive(Debug)]
pub struct Reader {
    looks: Arc<Mutex<Vec<Look>>>,
    task: JoinHandle<()>,
}

impl Reader {
    /// Starts to ask the servers behind `at`, and the `statistics` page, every `pace`.
    pub fn start(at: SocketAddrV4, statistics: SocketAddrV4, pace: Duration) -> Self {
        let looks = Arc::new(Mutex::new(Vec::new()));
        let shared = Arc::clone(&looks);
        let task = tokio::spawn(async move {
            loop {
                let page = http::get(statistics, "/", WRITE).await;
                let statistics = page.is_ok_and(|page| page.status == 200);
                let found = look(at).await.ok();
                lock(&shared).push(Look {
                    at: Instant::now(),
                    statistics,
                    found,
                });
                sleep(pace).await;
            }
        });
        Self { looks, task }
    }

    /// Ends it and returns what it saw.
    pub async fn stop(self) -> Vec<Look> {
        self.task.abort();
        let _ = self.task.await;
        std::mem::take(&mut *lock(&self.looks))
    }
}
