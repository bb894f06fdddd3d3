//! Health checks as fast as a server answers them: connections that are kept, and on each one request at a time.
//!
//! The client has a thread of its own, which may be bound to a core, so that what it needs is not taken from the server that it measures.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::net::SocketAddrV4;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use http_body_util::{BodyExt as _, Empty};
use hyper::body::Bytes;
use hyper::header::HOST;
use hyper::{Request, client::conn::http1};
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;
use tokio::task::{JoinSet, LocalSet};
use tokio::time::{Instant, sleep, timeout};

use crate::error::{Error, Result};
use crate::proc;

/// Connections at once; as many as the load balancers of a large site.
const CONNECTIONS: usize = 8;
/// An answer that takes longer counts as failed.
const LIMIT: Duration = Duration::from_secs(2);

/// What a client asks for.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Target {
    /// Whom.
    pub(crate) at: SocketAddrV4,
    /// Which page.
    pub(crate) path: &'static str,
}

/// A client at work.
#[derive(Debug)]
pub(crate) struct Load {
    stop: Arc<AtomicBool>,
    thread: JoinHandle<Result<Answers>>,
}

/// What it was answered.
#[derive(Debug, Default)]
pub(crate) struct Answers {
    /// How often each status came.
    pub(crate) codes: BTreeMap<u16, usize>,
    /// Requests without an answer.
    pub(crate) failed: usize,
    /// How long each answer took, the shortest first; with the connection's making where there was none.
    pub(crate) times: Vec<Duration>,
    /// How long the client was at work.
    pub(crate) took: Duration,
}

impl Load {
    /// Begins, on a core of its own if there is one for it.
    pub(crate) fn start(target: Target, core: Option<usize>) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let seen = Arc::clone(&stop);
        let thread = std::thread::spawn(move || work(target, core, seen));
        Self { stop, thread }
    }

    /// Ends it and tells what it was answered.
    ///
    /// # Errors
    /// [`Error::Unable`] when it could not begin.
    pub(crate) async fn stop(self) -> Result<Answers> {
        self.stop.store(true, Ordering::Relaxed);
        let ended = tokio::task::spawn_blocking(move || self.thread.join()).await;
        let panicked = || Error::Unable("the client of the REST API panicked".into());
        ended.map_err(|_| panicked())?.map_err(|_| panicked())?
    }
}

fn work(target: Target, core: Option<usize>, stop: Arc<AtomicBool>) -> Result<Answers> {
    if let Some(core) = core {
        let me = std::fs::read_link("/proc/thread-self").map_err(Error::io(|| "find this thread's id"))?;
        let id = me.file_name().and_then(|id| id.to_str()?.parse().ok());
        proc::bind(id.unwrap_or(0), core)?;
    }
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.map_err(Error::io(|| "start the client of the REST API"))?;
    let answers = Rc::new(RefCell::new(Answers::default()));
    let began = Instant::now();
    LocalSet::new().block_on(&runtime, async {
        let mut clients = JoinSet::new();
        for _ in 0..CONNECTIONS {
            clients.spawn_local(ask_on(target, Arc::clone(&stop), Rc::clone(&answers)));
        }
        clients.join_all().await;
    });
    let mut answers = answers.take();
    answers.took = began.elapsed();
    answers.times.sort_unstable();
    Ok(answers)
}

/// Asks until it is to stop, over one connection after the other.
async fn ask_on(target: Target, stop: Arc<AtomicBool>, answers: Rc<RefCell<Answers>>) {
    while !stop.load(Ordering::Relaxed) {
        if connection(target, &stop, &answers).await.is_err() {
            answers.borrow_mut().failed += 1;
            sleep(Duration::from_millis(1)).await;
        }
    }
}

type Failure = Box<dyn std::error::Error + Send + Sync>;

async fn connection(
    target: Target,
    stop: &AtomicBool,
    answers: &RefCell<Answers>,
) -> std::result::Result<(), Failure> {
    let mut began = Instant::now();
    let stream = timeout(LIMIT, TcpStream::connect(target.at)).await??;
    stream.set_nodelay(true)?;
    let (mut sender, driver) = http1::handshake(TokioIo::new(stream)).await?;
    // Ends with the sender.
    tokio::task::spawn_local(driver);
    while !stop.load(Ordering::Relaxed) {
        let request = Request::get(target.path).header(HOST, target.at.to_string());
        let request = request.body(Empty::<Bytes>::new())?;
        let answer = async {
            let answer = sender.send_request(request).await?;
            let code = answer.status().as_u16();
            answer.into_body().collect().await?;
            Ok::<_, hyper::Error>(code)
        };
        let code = timeout(LIMIT, answer).await??;
        {
            let mut answers = answers.borrow_mut();
            *answers.codes.entry(code).or_default() += 1;
            answers.times.push(began.elapsed());
        }
        began = Instant::now();
        if sender.ready().await.is_err() {
            // The server keeps no connections.
            return Ok(());
        }
    }
    Ok(())
}
