//! Connections: accepting them, bounding what each may cost, and letting go of the idlest when there are too many.
//!
//! The listener stands behind `dyn`, so that a simulator serves the very same code. Each connection is a task of its own with a
//! time limit for the handshake, for the header (idle keep-alive included), for the body and for writes that stall. Nothing
//! a client does holds up the accept loop.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, PoisonError, RwLock, Weak};
use std::time::Duration;

use hyper::header::{HeaderMap, HeaderName, HeaderValue};
use hyper_util::rt::{TokioIo, TokioTimer};
use serde_json::Value;
use surus_core::types::MonoTime;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::{Mutex, Semaphore, mpsc};
use tokio_rustls::TlsAcceptor;

use super::backend::{Backend, BoxFuture, DcsError};
use super::restart::Scheduler;
use super::state::NodeStatus;
use super::stream::Patient;
use super::tls::{self, TlsError};
use super::{PATRONI_VERSION, route, security};
use crate::config::settings::{BasicAuth, RestApi};
use crate::dcs::snapshot::Snapshot;
use crate::net::{Listener, Stream};
use crate::published::Published;
use crate::task::Owned;

/// Bounds on what clients may cost.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Limits {
    /// Open connections; beyond it the one that has been idle longest is closed. Default 512.
    pub max_connections: usize,
    /// For the request's header to arrive whole, and for an idle connection to send another. Default 10 s.
    pub header_timeout: Duration,
    /// For the body to arrive whole. Default 10 s.
    pub body_timeout: Duration,
    /// For the TLS handshake. Default 5 s.
    pub handshake_timeout: Duration,
    /// For a write to make progress. Default 10 s.
    pub write_timeout: Duration,
    /// Bytes of a body. Default 1 MiB.
    pub max_body: usize,
    /// Bytes that all bodies being received may hold together, small ones aside. Default 8 MiB.
    pub max_body_bytes: usize,
    /// Bytes of a header; the buffer of a connection is not larger either. Default 16 KiB.
    pub max_header: usize,
    /// Orders (switchovers, restarts, …) under way at once; more are refused. Default 32.
    pub max_orders: usize,
    /// How long a read or write of the DCS for a client may take. Default 10 s.
    pub dcs_timeout: Duration,
    /// How long the core may take to answer an order that it only has to begin, or a question. Default 30 s.
    pub core_timeout: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            max_connections: 512,
            header_timeout: Duration::from_secs(10),
            body_timeout: Duration::from_secs(10),
            handshake_timeout: Duration::from_secs(5),
            write_timeout: Duration::from_secs(10),
            max_body: 1 << 20,
            max_body_bytes: 8 << 20,
            max_header: 16 << 10,
            max_orders: 32,
            dcs_timeout: Duration::from_secs(10),
            core_timeout: Duration::from_secs(30),
        }
    }
}

/// The settings in force, with what is computed from them once.
pub(super) struct Live {
    pub(super) settings: RestApi,
    acceptor: Option<TlsAcceptor>,
    plain_headers: HeaderMap,
    tls_headers: HeaderMap,
}

impl Live {
    fn new(settings: RestApi) -> Result<Self, TlsError> {
        let acceptor = tls::acceptor(&settings)?;
        let mut plain_headers = HeaderMap::new();
        let server = match settings.server_tokens.to_ascii_lowercase().as_str() {
            "minimal" => format!("Patroni/{PATRONI_VERSION}"),
            "productonly" => "Patroni".to_owned(),
            _ => format!("Surus/{}", env!("CARGO_PKG_VERSION")),
        };
        insert(&mut plain_headers, "server", &server);
        for (name, value) in &settings.http_extra_headers {
            insert(&mut plain_headers, name, value);
        }
        let mut tls_headers = plain_headers.clone();
        for (name, value) in &settings.https_extra_headers {
            insert(&mut tls_headers, name, value);
        }
        Ok(Self {
            settings,
            acceptor,
            plain_headers,
            tls_headers,
        })
    }

    /// The headers of every reply.
    pub(super) fn headers(&self, tls: bool) -> &HeaderMap {
        if tls {
            &self.tls_headers
        } else {
            &self.plain_headers
        }
    }
}

fn insert(headers: &mut HeaderMap, name: &str, value: &str) {
    match (HeaderName::try_from(name), HeaderValue::try_from(value)) {
        (Ok(name), Ok(value)) => {
            headers.insert(name, value);
        }
        _ => tracing::warn!(
            name,
            value,
            "an extra header of restapi is no valid HTTP header and is left out"
        ),
    }
}

/// What all handlers share.
pub(super) struct Shared {
    pub(super) backend: Arc<dyn Backend>,
    pub(super) statuses: Published<Arc<NodeStatus>>,
    pub(super) limits: Limits,
    pub(super) orders: Semaphore,
    pub(super) body_bytes: AtomicUsize,
    pub(super) restarts: Scheduler,
    pub(super) resolved: Mutex<security::Resolved>,
    live: RwLock<Arc<Live>>,
    last_read: Mutex<Option<(MonoTime, Result<Snapshot, DcsError>)>>,
    activity: AtomicU64,
}

impl Shared {
    /// The newest status.
    pub(super) fn status(&self) -> Arc<NodeStatus> {
        self.statuses.get()
    }

    /// The settings in force.
    pub(super) fn live(&self) -> Arc<Live> {
        self.live.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Reads the DCS. Requests that wait for a read while another is under way share the next one, so that any number of
    /// clients costs the DCS one read at a time; none gets a read that began before it asked.
    pub(super) async fn read_cluster(&self) -> Result<Snapshot, DcsError> {
        let asked = self.backend.now();
        let mut last = self.last_read.lock().await;
        if let Some((sent, result)) = &*last
            && *sent > asked
        {
            return result.clone();
        }
        let sent = self.backend.now();
        let result = self.of_dcs(self.backend.read_cluster()).await;
        *last = Some((sent, result.clone()));
        result
    }

    /// Awaits the DCS, but not for ever: a wedged driver must not collect requests.
    pub(super) async fn of_dcs<T>(&self, asked: BoxFuture<'_, Result<T, DcsError>>) -> Result<T, DcsError> {
        let limit = self.limits.dcs_timeout;
        match tokio::time::timeout(limit, asked).await {
            Ok(result) => result,
            Err(_) => Err(DcsError::Unavailable(format!(
                "no answer within {} s",
                limit.as_secs_f64()
            ))),
        }
    }

    fn tick(&self) -> u64 {
        self.activity.fetch_add(1, Ordering::Relaxed)
    }
}

/// The scheduled restart.
#[derive(Clone)]
pub struct Schedule(Weak<Shared>);

impl Schedule {
    /// The scheduled restart, as the member's key shows it. The backend is woken when it changes.
    #[must_use]
    pub fn record(&self) -> Option<Value> {
        self.0.upgrade()?.restarts.record()
    }
}

/// The REST API of one node.
#[derive(Clone)]
pub struct Rest {
    shared: Arc<Shared>,
}

impl Rest {
    /// Prepares the API; [`Rest::serve`] opens it.
    ///
    /// # Errors
    /// The certificates of `settings` cannot be used.
    pub fn new(
        backend: Arc<dyn Backend>,
        statuses: Published<Arc<NodeStatus>>,
        settings: RestApi,
        limits: Limits,
    ) -> Result<Self, TlsError> {
        let shared = Shared {
            backend,
            statuses,
            orders: Semaphore::new(limits.max_orders),
            body_bytes: AtomicUsize::new(0),
            limits,
            restarts: Scheduler::default(),
            resolved: Mutex::default(),
            live: RwLock::new(Arc::new(Live::new(settings)?)),
            last_read: Mutex::default(),
            activity: AtomicU64::new(0),
        };
        Ok(Self {
            shared: Arc::new(shared),
        })
    }

    /// Takes new settings, certificates read anew, for connections from now on (access rules for all). The address is not
    /// looked at: for a new one, serve a new listener.
    ///
    /// # Errors
    /// The certificates cannot be used; the old settings stay in force.
    pub fn reconfigure(&self, settings: RestApi) -> Result<(), TlsError> {
        let live = Arc::new(Live::new(settings)?);
        *self.shared.live.write().unwrap_or_else(PoisonError::into_inner) = live;
        Ok(())
    }

    /// The scheduled restart without the server: who holds it does not keep the server alive.
    #[must_use]
    pub fn schedule(&self) -> Schedule {
        Schedule(Arc::downgrade(&self.shared))
    }

    /// The password that others must show for unsafe methods, if there is one.
    #[must_use]
    pub fn authentication(&self) -> Option<BasicAuth> {
        self.shared.live().settings.authentication.clone()
    }

    /// Serves until the future is dropped, which closes all connections. Scheduled restarts are executed meanwhile.
    pub async fn serve(&self, listener: Box<dyn Listener>) {
        tokio::select! {
            biased;
            () = super::restart::run_scheduled(&self.shared) => {}
            () = accept(&self.shared, listener) => {}
        }
    }
}

/// How a connection is used, for choosing whom to close.
#[derive(Debug, Default)]
pub(super) struct Usage {
    last: AtomicU64,
    orders: AtomicUsize,
}

/// One client.
pub(super) struct Connection {
    pub(super) peer: SocketAddr,
    pub(super) tls: bool,
    /// It showed a certificate, which was verified.
    pub(super) certificate: bool,
    usage: Arc<Usage>,
}

impl Connection {
    /// Keeps the connection while an admitted order is carried out.
    pub(super) fn busy(&self) -> Busy<'_> {
        self.usage.orders.fetch_add(1, Ordering::Relaxed);
        Busy(&self.usage)
    }
}

/// See [`Connection::busy`].
pub(super) struct Busy<'a>(&'a Usage);

impl Drop for Busy<'_> {
    fn drop(&mut self) {
        self.0.orders.fetch_sub(1, Ordering::Relaxed);
    }
}

/// An open connection; it closes when dropped.
struct Slot {
    usage: Arc<Usage>,
    _task: Owned,
}

/// Tells that a connection has ended, also one whose handler panicked.
struct End {
    number: u64,
    ended: mpsc::UnboundedSender<u64>,
}

impl Drop for End {
    fn drop(&mut self) {
        // Nobody listens any more when the server ends itself.
        let _ = self.ended.send(self.number);
    }
}

async fn accept(shared: &Arc<Shared>, mut listener: Box<dyn Listener>) {
    let (ended, mut ends) = mpsc::unbounded_channel();
    let mut open: BTreeMap<u64, Slot> = BTreeMap::new();
    loop {
        tokio::select! {
            biased;
            Some(number) = ends.recv() => drop(open.remove(&number)),
            accepted = listener.accept() => match accepted {
                Ok((stream, peer)) => {
                    if open.len() >= shared.limits.max_connections && !close_idlest(&mut open) {
                        continue;
                    }
                    let number = shared.tick();
                    let usage = Arc::new(Usage { last: AtomicU64::new(number), orders: AtomicUsize::new(0) });
                    let connection = serve_connection(shared.clone(), stream, peer, usage.clone());
                    let end = End { number, ended: ended.clone() };
                    let task = shared.backend.spawn(Box::pin(async move {
                        let _end = end;
                        connection.await;
                    }));
                    open.insert(number, Slot { usage, _task: Owned(task) });
                }
                Err(error) => {
                    // Out of descriptors, most likely: make room, and do not spin.
                    tracing::warn!(%error, "the REST API cannot accept a connection");
                    close_idlest(&mut open);
                    tokio::time::sleep(Duration::from_millis(20)).await;
                }
            },
        }
    }
}

/// Closes the connection that was used longest ago, unless every one carries out an order.
fn close_idlest(open: &mut BTreeMap<u64, Slot>) -> bool {
    let idlest = open
        .iter()
        .filter(|(_, slot)| slot.usage.orders.load(Ordering::Relaxed) == 0)
        .min_by_key(|(_, slot)| slot.usage.last.load(Ordering::Relaxed))
        .map(|(number, _)| *number);
    match idlest.and_then(|number| open.remove(&number)) {
        Some(slot) => {
            drop(slot);
            true
        }
        None => false,
    }
}

async fn serve_connection(shared: Arc<Shared>, stream: Stream, peer: SocketAddr, usage: Arc<Usage>) {
    let live = shared.live();
    let stream = Patient::new(stream, shared.limits.write_timeout);
    let connection = Connection {
        peer,
        tls: live.acceptor.is_some(),
        certificate: false,
        usage,
    };
    match &live.acceptor {
        None => serve_requests(shared, stream, connection).await,
        Some(acceptor) => {
            let handshake = acceptor.accept(stream);
            match tokio::time::timeout(shared.limits.handshake_timeout, handshake).await {
                Ok(Ok(stream)) => {
                    let certificate = stream.get_ref().1.peer_certificates().is_some();
                    serve_requests(
                        shared,
                        stream,
                        Connection {
                            certificate,
                            ..connection
                        },
                    )
                    .await;
                }
                Ok(Err(error)) => tracing::debug!(%peer, %error, "a TLS handshake of the REST API failed"),
                Err(_) => tracing::debug!(%peer, "a TLS handshake of the REST API took too long"),
            }
        }
    }
}

async fn serve_requests<S>(shared: Arc<Shared>, stream: S, connection: Connection)
where
    S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
{
    let connection = Arc::new(connection);
    let peer = connection.peer;
    let limits = shared.limits.clone();
    let service = hyper::service::service_fn(move |request| {
        connection.usage.last.store(shared.tick(), Ordering::Relaxed);
        let (shared, connection) = (shared.clone(), connection.clone());
        async move { Ok::<_, Infallible>(route::handle(&shared, &connection, request).await) }
    });
    let served = hyper::server::conn::http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(limits.header_timeout)
        .max_buf_size(limits.max_header)
        // Simple checks send a request, close their side and wait for the answer.
        .half_close(true)
        .title_case_headers(true)
        // The date comes from the agent's clock, which a simulator replaces.
        .auto_date_header(false)
        .serve_connection(TokioIo::new(stream), service)
        .await;
    if let Err(error) = served {
        tracing::debug!(%peer, %error, "a connection of the REST API ended early");
    }
}
