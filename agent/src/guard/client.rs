//! The agent's side of the guard.
//!
//! A [`Guard`] is one connection. Every method is one request with one answer and a time limit, and may be dropped at
//! any point without harm to the connection. When a request has timed out it may still have been obeyed: ask
//! [`Guard::status`], or repeat it; all of them may be repeated.
//!
//! News are level-triggered: [`Guard::watch`] holds the latest status, in which [`Status::exits`] counts the
//! postmasters that have ended, so an exit is seen even by who was not looking when it happened.

use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::io;
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::UnixStream;
use tokio::net::unix::{OwnedReadHalf, OwnedWriteHalf};
use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::AbortHandle;
use tokio::time::timeout;

use super::protocol::{
    HEADER_LEN, Header, Kind, MAX_PAYLOAD, Order, Outcome, Phase, Report, Request, Stage, Status, Strings,
    VERSION,
};
use super::socket::{SocketError, connect};
use super::start::TAKEN;

/// How long a request may take. The guard answers within a millisecond unless it is frozen.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(1);
/// How long a start may take: up to `execve` only, but the directory and the log lie on disks.
const START_TIMEOUT: Duration = Duration::from_secs(10);
/// How long a new guard may take to be ready.
const SPAWN_TIMEOUT: Duration = Duration::from_secs(5);
/// How long to wait for a guard that holds the lock to open its socket.
const SETTLE: Duration = Duration::from_millis(20);
/// Requests that may wait to be written; more only ever wait when the guard does not read.
const QUEUE: usize = 32;

/// Variables that speak of the agent and must not be inherited: PostgreSQL would report its own state to systemd in
/// the agent's name.
const NOT_INHERITED: [&str; 6] = [
    "NOTIFY_SOCKET",
    "WATCHDOG_USEC",
    "WATCHDOG_PID",
    "LISTEN_FDS",
    "LISTEN_PID",
    "LISTEN_FDNAMES",
];

/// What a guard cannot do, or could not be asked.
#[derive(Debug, thiserror::Error)]
pub enum GuardError {
    /// There is no connection to be had.
    #[error("no guard can be reached")]
    Connect(#[from] SocketError),
    /// The program that should have become a guard could not be run.
    #[error("cannot run {} as the guard", exe.display())]
    Spawn {
        /// The program.
        exe: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// The guard did not come up, in its own words.
    #[error("the guard did not come up: {0}")]
    NotReady(String),
    /// Whoever listens is another user.
    #[error("the process behind {} runs as uid {theirs}, not {ours}; no order is given to it", path.display())]
    WrongUser {
        /// The socket.
        path: PathBuf,
        /// Uid of the listener.
        theirs: u32,
        /// Our own.
        ours: u32,
    },
    /// No answer in time. Whether the request was obeyed is unknown.
    #[error("the guard did not answer within {0:?}")]
    Unresponsive(Duration),
    /// The connection has ended: see [`Guard::watch`] for which of the two it was.
    #[error("the connection to the guard has ended")]
    Disconnected,
    /// The guard speaks another version, and this is not among the requests that all versions read.
    #[error(
        "the running guard speaks protocol {guard}, this agent {VERSION}: it goes on guarding what runs, but only a \
         new guard can start PostgreSQL; stop PostgreSQL and the guard will be replaced"
    )]
    Version {
        /// The guard's version.
        guard: u16,
    },
    /// The order is of an older lease than the guard has seen.
    #[error("the order is older than generation {seen}, which the guard has seen")]
    Stale {
        /// The newest generation.
        seen: u64,
    },
    /// There is a postmaster, or its end is not over.
    #[error("the guard is busy with postmaster {pid} ({phase:?})")]
    Busy {
        /// The postmaster.
        pid: i32,
        /// Its phase.
        phase: Phase,
    },
    /// There is no postmaster to do it to.
    #[error("the guard has no postmaster")]
    NoPostmaster,
    /// The program did not start.
    #[error("cannot {stage} to start {}", program.display())]
    StartFailed {
        /// The program.
        program: PathBuf,
        /// The step that failed.
        stage: Stage,
        /// The system's reason.
        source: io::Error,
    },
    /// The deadline had passed when the guard read it. What it guarded, if anything, is being killed.
    #[error("the deadline has passed")]
    Expired,
    /// The process to adopt is not there, or started at another time.
    #[error("there is no process {pid} that started then")]
    NoSuchProcess {
        /// Its pid.
        pid: i32,
    },
    /// The guard refused for a reason that points to a bug.
    #[error("the guard refused the request: {0:?}")]
    Refused(Outcome),
    /// A system call of the guard failed.
    #[error("the guard could not do it")]
    System(#[source] io::Error),
    /// A string with a NUL, a relative program, or more text than a frame holds.
    #[error("the command line cannot be sent: {0}")]
    Unsendable(&'static str),
}

/// Whether the connection stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Link {
    /// It does.
    Up,
    /// Another agent has taken over: this one has nothing to say any more.
    Replaced,
    /// The guard is gone (or closed the connection because its answers were not read). The kernel has sent its own
    /// postmaster SIGQUIT. Connect again; if a new guard had to be started, make sure with [`super::kill_all_of`].
    Gone,
}

/// The latest that is known.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct GuardView {
    /// The connection.
    pub link: Link,
    /// What the guard last said; stale when the link is not up.
    pub status: Status,
}

/// A postmaster to start.
#[derive(Debug, Clone)]
pub struct Start {
    /// Absolute path of the program.
    pub program: PathBuf,
    /// Its arguments, without its own name.
    pub args: Vec<OsString>,
    /// Variables over the guard's own environment.
    pub env: Vec<(OsString, OsString)>,
    /// Directory to start in.
    pub cwd: PathBuf,
    /// File that standard output and error are appended to.
    pub log: Option<PathBuf>,
    /// The deadline that holds from its first instruction, BOOTTIME nanoseconds; `None` for a replica.
    pub deadline_ns: Option<u64>,
    /// Generation of the lease.
    pub generation: u64,
}

/// A connection to the guard, as its agent. Dropped, it closes; the guard goes on.
#[derive(Debug)]
pub struct Guard {
    requests: mpsc::Sender<Vec<u8>>,
    pending: Arc<Pending>,
    next_id: AtomicU64,
    view: watch::Receiver<GuardView>,
    tasks: [AbortHandle; 2],
}

/// Who waits for which answer; `None` once no answer will come any more.
#[derive(Debug)]
struct Pending(Mutex<Option<BTreeMap<u64, oneshot::Sender<Report>>>>);

impl Pending {
    fn with<T>(&self, act: impl FnOnce(&mut BTreeMap<u64, oneshot::Sender<Report>>) -> T) -> Option<T> {
        self.0
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .as_mut()
            .map(act)
    }

    fn close(&self) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = None;
    }
}

/// Forgets a request whose asker is gone.
struct Forget<'a>(&'a Pending, u64);

impl Drop for Forget<'_> {
    fn drop(&mut self) {
        self.0.with(|pending| pending.remove(&self.1));
    }
}

impl Drop for Guard {
    fn drop(&mut self) {
        for task in &self.tasks {
            task.abort();
        }
    }
}

impl Guard {
    /// Connects to the guard that lives at `socket`, as its agent: a former agent's connection is closed.
    ///
    /// # Errors
    /// [`GuardError::Connect`] when nobody listens, [`GuardError::WrongUser`] when somebody else does,
    /// [`GuardError::Unresponsive`] when the guard is frozen.
    pub async fn connect(socket: &Path) -> Result<(Self, Status), GuardError> {
        let io = |source| {
            GuardError::Connect(SocketError::Io {
                what: "connect to the guard's socket",
                path: socket.to_owned(),
                source,
            })
        };
        let stream = UnixStream::from_std(connect(socket)?).map_err(io)?;
        let theirs = stream.peer_cred().map_err(io)?.uid();
        let ours = rustix::process::geteuid().as_raw();
        if theirs != ours {
            return Err(GuardError::WrongUser {
                path: socket.to_owned(),
                theirs,
                ours,
            });
        }
        let (mut reader, mut writer) = stream.into_split();
        let hello = async {
            writer
                .write_all(&encode(&Request::Hello, 0)?)
                .await
                .map_err(|_| GuardError::Disconnected)?;
            loop {
                // A version that announces something before it answers is welcome to.
                if let Some(report) = receive(&mut reader).await.map_err(|_| GuardError::Disconnected)?
                    && report.kind == Kind::Reply
                {
                    return Ok::<_, GuardError>(report.status);
                }
            }
        };
        let status = timeout(REQUEST_TIMEOUT, hello)
            .await
            .map_err(|_| GuardError::Unresponsive(REQUEST_TIMEOUT))??;

        let (sender, view) = watch::channel(GuardView {
            link: Link::Up,
            status,
        });
        let pending = Arc::new(Pending(Mutex::new(Some(BTreeMap::new()))));
        let (requests, queue) = mpsc::channel(QUEUE);
        let reading = tokio::spawn(read_all(reader, Arc::clone(&pending), sender));
        let writing = tokio::spawn(write_all(writer, queue));
        let guard = Self {
            requests,
            pending,
            next_id: AtomicU64::new(1),
            view,
            tasks: [reading.abort_handle(), writing.abort_handle()],
        };
        Ok((guard, status))
    }

    /// Connects to a living guard, or starts `exe guard` and connects to that. The new guard is nobody's child and
    /// outlives the agent; under systemd that needs `KillMode=process`.
    ///
    /// # Errors
    /// As for [`Guard::connect`], and when no guard comes up.
    pub async fn connect_or_spawn(socket: &Path, exe: &Path) -> Result<(Self, Status), GuardError> {
        let find = async {
            loop {
                match Self::connect(socket).await {
                    Err(GuardError::Connect(SocketError::Io { source, .. })) if nobody_listens(&source) => {}
                    other => return other,
                }
                if !spawn(socket, exe).await? {
                    // Another agent's guard is on its way; or one lives whose socket was deleted.
                    tokio::time::sleep(SETTLE).await;
                }
            }
        };
        match timeout(SPAWN_TIMEOUT, find).await {
            Ok(found) => found,
            Err(_) => Err(GuardError::NotReady(format!(
                "another guard holds {}.lock, but does not answer at its socket; the file names its pid",
                socket.display()
            ))),
        }
    }

    /// The latest status and the state of the connection. Changes when the postmaster ends, when anything else in the
    /// status does, and when the connection is lost.
    #[must_use]
    pub fn watch(&self) -> watch::Receiver<GuardView> {
        self.view.clone()
    }

    /// Starts PostgreSQL as the guard's child, under the deadline given. Returns when the program runs, which is long
    /// before it accepts connections.
    ///
    /// # Errors
    /// Among others [`GuardError::StartFailed`], [`GuardError::Busy`], [`GuardError::Stale`], [`GuardError::Expired`].
    pub async fn start(&self, start: &Start) -> Result<Status, GuardError> {
        self.check_version()?;
        if !start.program.is_absolute() {
            return Err(GuardError::Unsendable("the program's path is not absolute"));
        }
        let mut argv = packed([start.program.as_os_str()])?;
        argv.extend(packed(start.args.iter().map(OsString::as_os_str))?);
        let mut env = Vec::new();
        for (name, value) in &start.env {
            let mut variable = name.clone();
            variable.push("=");
            variable.push(value);
            env.extend(packed([variable.as_os_str()])?);
        }
        let cwd = packed([start.cwd.as_os_str()])?;
        let log = packed([start.log.as_deref().map_or(OsStr::new(""), Path::as_os_str)])?;
        let strings = |bytes| Strings::packed(bytes).expect("packed above");
        let request = Request::Start {
            deadline_ns: start.deadline_ns.unwrap_or(0),
            generation: start.generation,
            argv: strings(&argv),
            env: strings(&env),
            cwd: strings(&cwd).first().expect("packed above"),
            log: strings(&log).first().expect("packed above"),
        };
        let report = self.ask(&request, START_TIMEOUT).await?;
        if report.outcome == Outcome::StartFailed {
            return Err(GuardError::StartFailed {
                program: start.program.clone(),
                stage: report.stage,
                source: io::Error::from_raw_os_error(report.errno),
            });
        }
        judge(report, 0)
    }

    /// Arms the deadline or moves it on. Within one generation it never comes closer by this: when the one in force is
    /// later it stays, and the status says so.
    ///
    /// # Errors
    /// [`GuardError::Stale`]; [`GuardError::Expired`] when it is past, in which case everything is being killed.
    pub async fn extend(&self, generation: u64, deadline_ns: u64) -> Result<Status, GuardError> {
        self.obey(&Request::Extend {
            deadline_ns,
            generation,
            shorten: false,
        })
        .await
    }

    /// As [`Guard::extend`], but the deadline may come closer.
    ///
    /// # Errors
    /// As for [`Guard::extend`].
    pub async fn shorten(&self, generation: u64, deadline_ns: u64) -> Result<Status, GuardError> {
        self.obey(&Request::Extend {
            deadline_ns,
            generation,
            shorten: true,
        })
        .await
    }

    /// Takes the deadline away. Only right when PostgreSQL is a replica and will stay one.
    ///
    /// # Errors
    /// [`GuardError::Stale`].
    pub async fn disarm(&self, generation: u64) -> Result<Status, GuardError> {
        self.obey(&Request::Disarm { generation }).await
    }

    /// Sends PostgreSQL a signal; returns when it is sent. Its end shows in [`Guard::watch`].
    ///
    /// # Errors
    /// [`GuardError::NoPostmaster`], or [`GuardError::Busy`] when it is ending already.
    pub async fn signal(&self, order: Order) -> Result<Status, GuardError> {
        self.obey(&Request::Signal(order)).await
    }

    /// Takes a postmaster under guard that somebody else started. `start_ticks` is field 22 of its `/proc/PID/stat`,
    /// or 0. The deadline in force, if any, holds for it from now on. Repeating it is harmless.
    ///
    /// It is not the guard's child: should the guard be killed, the kernel does not stop it.
    ///
    /// # Errors
    /// [`GuardError::NoSuchProcess`], [`GuardError::Busy`], or [`GuardError::System`] for a process of another user.
    pub async fn adopt(&self, pid: i32, start_ticks: u64) -> Result<Status, GuardError> {
        self.check_version()?;
        judge(
            self.ask(&Request::Adopt { pid, start_ticks }, REQUEST_TIMEOUT)
                .await?,
            pid,
        )
    }

    /// Asks how things stand.
    ///
    /// # Errors
    /// When the guard cannot be asked.
    pub async fn status(&self) -> Result<Status, GuardError> {
        self.obey(&Request::Status).await
    }

    /// Ends the guard.
    ///
    /// # Errors
    /// [`GuardError::Busy`] while it has a postmaster.
    pub async fn quit(&self) -> Result<Status, GuardError> {
        self.obey(&Request::Quit).await
    }

    fn check_version(&self) -> Result<(), GuardError> {
        let guard = self.view.borrow().status.version;
        if guard == VERSION {
            Ok(())
        } else {
            Err(GuardError::Version { guard })
        }
    }

    async fn obey(&self, request: &Request<'_>) -> Result<Status, GuardError> {
        judge(self.ask(request, REQUEST_TIMEOUT).await?, 0)
    }

    async fn ask(&self, request: &Request<'_>, limit: Duration) -> Result<Report, GuardError> {
        let id = self.next_id.fetch_add(1, Ordering::Relaxed);
        let frame = encode(request, id)?;
        let (sender, answer) = oneshot::channel();
        self.pending
            .with(|pending| pending.insert(id, sender))
            .ok_or(GuardError::Disconnected)?;
        let _forget = Forget(&self.pending, id);
        self.requests.try_send(frame).map_err(|error| match error {
            mpsc::error::TrySendError::Full(_) => GuardError::Unresponsive(Duration::ZERO),
            mpsc::error::TrySendError::Closed(_) => GuardError::Disconnected,
        })?;
        match timeout(limit, answer).await {
            Ok(Ok(report)) => Ok(report),
            Ok(Err(_)) => Err(GuardError::Disconnected),
            Err(_) => Err(GuardError::Unresponsive(limit)),
        }
    }
}

/// What an answer means to the caller.
fn judge(report: Report, pid: i32) -> Result<Status, GuardError> {
    let Report {
        outcome,
        errno,
        status,
        ..
    } = report;
    Err(match outcome {
        Outcome::Done | Outcome::Kept => return Ok(status),
        Outcome::Stale => GuardError::Stale {
            seen: status.generation,
        },
        Outcome::Busy => GuardError::Busy {
            pid: status.pid,
            phase: status.phase,
        },
        Outcome::NoPostmaster => GuardError::NoPostmaster,
        Outcome::Version => GuardError::Version {
            guard: status.version,
        },
        Outcome::Expired => GuardError::Expired,
        Outcome::NoSuchProcess => GuardError::NoSuchProcess { pid },
        Outcome::System => GuardError::System(io::Error::from_raw_os_error(errno)),
        Outcome::StartFailed | Outcome::Malformed | Outcome::NotAgent => GuardError::Refused(outcome),
    })
}

fn encode(request: &Request<'_>, id: u64) -> Result<Vec<u8>, GuardError> {
    let mut buffer = vec![0; HEADER_LEN + MAX_PAYLOAD];
    let length = request
        .encode(id, &mut buffer)
        .ok_or(GuardError::Unsendable("it is longer than 64 KiB in all"))?;
    buffer.truncate(length);
    Ok(buffer)
}

/// Strings one after the other, each with its NUL.
fn packed<'a>(strings: impl IntoIterator<Item = &'a OsStr>) -> Result<Vec<u8>, GuardError> {
    let mut bytes = Vec::new();
    for string in strings {
        if string.as_bytes().contains(&0) {
            return Err(GuardError::Unsendable("it has a NUL byte in it"));
        }
        bytes.extend_from_slice(string.as_bytes());
        bytes.push(0);
    }
    Ok(bytes)
}

fn nobody_listens(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused
    )
}

/// Starts a guard and waits until it is ready; `false` when another one has the place.
async fn spawn(socket: &Path, exe: &Path) -> Result<bool, GuardError> {
    let mut command = tokio::process::Command::new(exe);
    command
        .arg("guard")
        .arg("--socket")
        .arg(socket)
        .stdin(std::process::Stdio::null());
    for variable in NOT_INHERITED {
        command.env_remove(variable);
    }
    // Settings of the agent, passwords among them, are none of PostgreSQL's business.
    for (variable, _) in std::env::vars_os() {
        let name = variable.to_string_lossy();
        if name.starts_with("PATRONI_") || name.starts_with("KUBERNETES_") {
            command.env_remove(&variable);
        }
    }
    let ended = command.output().await.map_err(|source| GuardError::Spawn {
        exe: exe.to_owned(),
        source,
    })?;
    match ended.status.code() {
        Some(0) => Ok(true),
        Some(code) if code == i32::from(TAKEN) => Ok(false),
        _ => Err(GuardError::NotReady(
            String::from_utf8_lossy(&ended.stderr).trim().to_owned(),
        )),
    }
}

/// One frame from the guard; `None` for one that this version does not know.
async fn receive(reader: &mut OwnedReadHalf) -> io::Result<Option<Report>> {
    let mut head = [0; HEADER_LEN];
    reader.read_exact(&mut head).await?;
    let header = Header::decode(&head).map_err(io::Error::other)?;
    let mut payload = vec![0; header.length];
    reader.read_exact(&mut payload).await?;
    Ok(Report::decode(header, &payload))
}

async fn read_all(mut reader: OwnedReadHalf, pending: Arc<Pending>, view: watch::Sender<GuardView>) {
    let mut link = Link::Gone;
    while let Ok(report) = receive(&mut reader).await {
        let Some(report) = report else {
            continue;
        };
        if report.kind == Kind::Replaced {
            link = Link::Replaced;
            break;
        }
        view.send_if_modified(|view| std::mem::replace(&mut view.status, report.status) != report.status);
        if report.kind == Kind::Reply
            && let Some(Some(asker)) = pending.with(|pending| pending.remove(&report.id))
        {
            // The asker may have given up in this very moment.
            let _ = asker.send(report);
        }
    }
    pending.close();
    view.send_modify(|view| view.link = link);
}

async fn write_all(mut writer: OwnedWriteHalf, mut queue: mpsc::Receiver<Vec<u8>>) {
    while let Some(frame) = queue.recv().await {
        if writer.write_all(&frame).await.is_err() {
            return;
        }
    }
}
