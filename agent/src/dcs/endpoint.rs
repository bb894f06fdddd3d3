//! One etcd member: its channel over our own sockets, its TLS and token, and one request at a time put to it.
//!
//! The channel is thrown away whenever a request went unanswered, so that a connection that the network has swallowed
//! never outlives the fault. A request that cannot have left the machine is told apart from one that may have arrived.

use std::future::Future;
use std::io;
use std::path::Path;
use std::pin::Pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use etcd_client::{
    Client, ConnectOptions, GetOptions, LeaseKeepAliveStream, LeaseKeeper, Txn, TxnOpResponse,
};
use hyper_util::rt::TokioIo;
use surus_core::types::MonoTime;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tonic::transport::{Certificate, ClientTlsConfig, Identity};

use super::fault::{DcsError, Failure, Kind};
use super::snapshot::RawKey;
use crate::clock::Clock;
use crate::config::settings::{self, HostPort};
use crate::machine::Machine;
use crate::net::Stream;
use crate::task::Executor;

/// Longest wait for a connection, TLS included.
const CONNECT_LIMIT: Duration = Duration::from_secs(1);
/// A silent connection with an open stream is pinged after this long. Servers of gRPC's Go library, such as etcd, cut off
/// clients that ping more often than every 5 s.
const PING_AFTER: Duration = Duration::from_secs(6);
/// How long an answer to that ping may take.
const PING_LIMIT: Duration = Duration::from_secs(3);
/// Where Linux distributions keep the certificates of public authorities, used where `cacert` is not set.
const SYSTEM_BUNDLES: [&str; 3] = [
    "/etc/ssl/certs/ca-certificates.crt",
    "/etc/pki/tls/certs/ca-bundle.crt",
    "/etc/ssl/cert.pem",
];

/// A request: everything that the adapter asks of etcd, but for watches.
#[derive(Debug, Clone)]
pub(super) enum Request {
    /// One key, or all keys that begin with it; linearizable.
    Range { key: String, prefix: bool },
    /// A transaction.
    Txn(Txn),
    /// A new lease.
    Grant { seconds: i64 },
    /// One keep-alive of a lease.
    KeepAlive { lease: i64 },
}

impl Request {
    /// Whether it changes keys.
    pub(super) fn writes(&self) -> bool {
        matches!(self, Self::Txn(_))
    }
}

/// What etcd answered, and when it was asked.
#[derive(Debug, Clone)]
pub(super) struct Answer {
    /// The answer.
    pub(super) reply: Reply,
    /// When the request was sent: read before it left.
    pub(super) sent: MonoTime,
    /// Whose answer it is.
    pub(super) header: Header,
}

/// The parts of etcd's response header that matter.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Header {
    pub(super) cluster: u64,
    pub(super) term: u64,
    pub(super) revision: i64,
}

impl Header {
    pub(super) fn read(header: Option<&etcd_client::ResponseHeader>) -> Result<Self, etcd_client::Error> {
        let header =
            header.ok_or_else(|| etcd_client::Error::Internal("the answer has no header".to_owned()))?;
        Ok(Self {
            cluster: header.cluster_id(),
            term: header.raft_term(),
            revision: header.revision(),
        })
    }
}

/// The answer to each kind of [`Request`].
#[derive(Debug, Clone)]
pub(super) enum Reply {
    /// Keys with their full names.
    Range(Vec<(String, RawKey)>),
    /// Whether the comparisons held, and what each `get` of the branch found.
    Txn {
        succeeded: bool,
        gets: Vec<Option<RawKey>>,
    },
    /// The lease granted, with the life that etcd gave it.
    Grant { lease: i64, seconds: i64 },
    /// The life that the lease has now.
    KeepAlive { seconds: i64 },
}

/// What can be asked of an endpoint over one of its channels.
trait Question {
    type Answer;

    fn ask(
        &self,
        endpoint: &Endpoint,
        client: Client,
        generation: u64,
    ) -> impl Future<Output = Result<Self::Answer, etcd_client::Error>> + Send;
}

impl Question for Request {
    type Answer = Answer;

    async fn ask(
        &self,
        endpoint: &Endpoint,
        client: Client,
        generation: u64,
    ) -> Result<Answer, etcd_client::Error> {
        endpoint.exchange(client, generation, self).await
    }
}

/// A watch of everything under a prefix, from a revision on.
struct WatchFrom<'a> {
    prefix: &'a str,
    revision: i64,
}

impl Question for WatchFrom<'_> {
    type Answer = etcd_client::WatchStream;

    async fn ask(
        &self,
        _: &Endpoint,
        client: Client,
        _: u64,
    ) -> Result<etcd_client::WatchStream, etcd_client::Error> {
        let options = etcd_client::WatchOptions::new()
            .with_prefix()
            .with_start_revision(self.revision)
            .with_progress_notify();
        client.watch_client().watch(self.prefix, Some(options)).await
    }
}

/// Opens a connection to this endpoint, whatever the network.
type Opener = Arc<dyn Fn() -> Pin<Box<dyn Future<Output = io::Result<Stream>> + Send>> + Send + Sync>;

/// One etcd member.
pub(super) struct Endpoint {
    /// Where it is.
    pub(super) at: HostPort,
    settings: settings::Etcd,
    opener: Opener,
    gauge: Arc<Gauge>,
    clock: Arc<dyn Clock>,
    tasks: Executor,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    /// Numbers the channels.
    generation: u64,
    client: Option<Client>,
    keeper: Option<Keeper>,
}

/// An open keep-alive stream without a request under way: one answer per request, so that no late answer is ever taken for
/// the answer to a later request.
struct Keeper {
    generation: u64,
    lease: i64,
    requests: LeaseKeeper,
    answers: LeaseKeepAliveStream,
}

impl Endpoint {
    /// The endpoint at `at`. Connects when first needed.
    ///
    /// # Errors
    /// TLS files that cannot be read, or hold no certificates.
    pub(super) fn new(at: HostPort, settings: &settings::Etcd, machine: &Machine) -> Result<Self, DcsError> {
        let gauge = Arc::new(Gauge::default());
        let opener: Opener = {
            let (dial, at, gauge) = (Arc::clone(&machine.dial), at.clone(), Arc::clone(&gauge));
            Arc::new(move || {
                let (dial, at, gauge) = (Arc::clone(&dial), at.clone(), Arc::clone(&gauge));
                Box::pin(async move {
                    let inner = dial.dial(&at.host, at.port).await?;
                    gauge.dials.fetch_add(1, Ordering::SeqCst);
                    gauge.live.fetch_add(1, Ordering::SeqCst);
                    Ok::<Stream, io::Error>(Box::new(Gauged { inner, gauge }))
                })
            })
        };
        let endpoint = Self {
            at,
            settings: settings.clone(),
            opener,
            gauge,
            clock: Arc::clone(&machine.clock),
            tasks: Executor(Arc::clone(&machine.tasks)),
            state: Mutex::default(),
        };
        endpoint.transport()?;
        Ok(endpoint)
    }

    /// Puts `request` to this endpoint, with one more try if only the token was out of date.
    pub(super) async fn attempt(&self, request: &Request, limit: Duration) -> Result<Answer, Failure> {
        self.within(limit, request).await
    }

    /// Opens a watch of everything under `prefix` from `revision` on.
    pub(super) async fn watch(
        &self,
        prefix: &str,
        revision: i64,
        limit: Duration,
    ) -> Result<etcd_client::WatchStream, Failure> {
        Box::pin(self.within(limit, &WatchFrom { prefix, revision })).await
    }

    /// Forgets channel and token; the next request starts afresh.
    pub(super) fn discard(&self) {
        let mut state = self.state();
        state.client = None;
        state.keeper = None;
    }

    /// Asks `question` within `limit`, tells whether it can have reached the endpoint, and renews the token if that is all it takes.
    async fn within<Q: Question>(&self, limit: Duration, question: &Q) -> Result<Q::Answer, Failure> {
        let dials = self.gauge.dials.load(Ordering::SeqCst);
        let connected = self.gauge.live.load(Ordering::SeqCst) > 0;
        let attempt = async {
            match self.ask(question).await {
                Err(error) if Failure::of(&error).kind == Kind::Token => {
                    self.discard();
                    self.ask(question).await
                }
                result => result,
            }
        };
        let mut failure = match tokio::time::timeout(limit, attempt).await {
            Ok(Ok(done)) => return Ok(done),
            Ok(Err(error)) => Failure::of(&error),
            Err(_) => Failure::ambiguous(format!("no answer within {} ms", limit.as_millis())),
        };
        if failure.maybe || failure.kind == Kind::Token {
            self.discard();
        }
        if !connected && self.gauge.dials.load(Ordering::SeqCst) == dials {
            failure.maybe = false;
        }
        failure.text = format!("{}: {}", self.at, failure.text);
        Err(failure)
    }

    async fn ask<Q: Question>(&self, question: &Q) -> Result<Q::Answer, etcd_client::Error> {
        let (client, generation) = self.client().await?;
        question.ask(self, client, generation).await
    }

    async fn exchange(
        &self,
        client: Client,
        generation: u64,
        request: &Request,
    ) -> Result<Answer, etcd_client::Error> {
        let sent = self.clock.now();
        let (reply, header) = match request {
            Request::Range { key, prefix } => {
                let options = if *prefix {
                    GetOptions::new().with_prefix()
                } else {
                    GetOptions::new()
                };
                let response = client.kv_client().get(key.as_str(), Some(options)).await?;
                let keys = response
                    .kvs()
                    .iter()
                    .map(|kv| (text(kv.key()), raw_key(kv)))
                    .collect();
                (Reply::Range(keys), Header::read(response.header())?)
            }
            Request::Txn(txn) => {
                let response = client.kv_client().txn(txn.clone()).await?;
                let gets = response
                    .op_responses()
                    .into_iter()
                    .filter_map(|op| match op {
                        TxnOpResponse::Get(get) => Some(get.kvs().first().map(raw_key)),
                        _ => None,
                    })
                    .collect();
                let succeeded = response.succeeded();
                (Reply::Txn { succeeded, gets }, Header::read(response.header())?)
            }
            Request::Grant { seconds } => {
                let response = client.lease_client().grant(*seconds, None).await?;
                if !response.error().is_empty() {
                    return Err(etcd_client::Error::Internal(response.error().to_owned()));
                }
                let (lease, seconds) = (response.id(), response.ttl());
                (Reply::Grant { lease, seconds }, Header::read(response.header())?)
            }
            Request::KeepAlive { lease } => return self.keep_alive(client, generation, *lease).await,
        };
        Ok(Answer { reply, sent, header })
    }

    async fn keep_alive(
        &self,
        client: Client,
        generation: u64,
        lease: i64,
    ) -> Result<Answer, etcd_client::Error> {
        let idle = self
            .state()
            .keeper
            .take()
            .filter(|keeper| keeper.generation == generation && keeper.lease == lease);
        if let Some(keeper) = idle
            && let Ok(answer) = self.keep_alive_on(keeper).await
        {
            return Ok(answer);
        }
        let (requests, answers) = client.lease_client().keep_alive(lease).await?;
        self.keep_alive_on(Keeper {
            generation,
            lease,
            requests,
            answers,
        })
        .await
    }

    /// One request, one answer. On any error, and when this is abandoned, the stream is lost with it.
    async fn keep_alive_on(&self, mut keeper: Keeper) -> Result<Answer, etcd_client::Error> {
        let sent = self.clock.now();
        keeper.requests.keep_alive().await?;
        let Some(response) = keeper.answers.message().await? else {
            return Err(tonic::Status::unavailable("the keep-alive stream ended").into());
        };
        let header = Header::read(response.header())?;
        let seconds = response.ttl();
        if response.id() != keeper.lease {
            return Err(etcd_client::Error::Internal(
                "answer for another lease".to_owned(),
            ));
        }
        if seconds > 0 {
            let mut state = self.state();
            if state.generation == keeper.generation {
                state.keeper = Some(keeper);
            }
        }
        Ok(Answer {
            reply: Reply::KeepAlive { seconds },
            sent,
            header,
        })
    }

    /// The channel in use, or a new one (with a new token if there is a user).
    async fn client(&self) -> Result<(Client, u64), etcd_client::Error> {
        {
            let state = self.state();
            if let Some(client) = &state.client {
                return Ok((client.clone(), state.generation));
            }
        }
        let plain = ConnectOptions::new().with_require_leader(true);
        let client = match (&self.settings.username, &self.settings.password) {
            (Some(user), Some(password)) => {
                let options = plain.clone().with_user(user, password);
                match Client::from_channel(self.channel()?, Some(options)).await {
                    // Users may write the password down before they switch authentication on.
                    Err(error) if error.to_string().contains("authentication is not enabled") => {
                        Client::from_channel(self.channel()?, Some(plain)).await?
                    }
                    result => result?,
                }
            }
            _ => Client::from_channel(self.channel()?, Some(plain)).await?,
        };
        let mut state = self.state();
        state.generation += 1;
        state.client = Some(client.clone());
        Ok((client, state.generation))
    }

    fn channel(&self) -> Result<etcd_client::Channel, etcd_client::Error> {
        let transport = self
            .transport()
            .map_err(|error| etcd_client::Error::InvalidArgs(error.to_string()))?;
        let opener = Arc::clone(&self.opener);
        let connector = tower::service_fn(move |_: http::Uri| {
            let opened = opener();
            async move { Ok::<_, io::Error>(TokioIo::new(opened.await?)) }
        });
        Ok(etcd_client::Channel::Tonic(
            transport.connect_with_connector_lazy(connector),
        ))
    }

    /// The transport's settings. Reads the TLS files anew, so that renewed certificates are picked up.
    fn transport(&self) -> Result<tonic::transport::Endpoint, DcsError> {
        let scheme = if self.settings.tls { "https" } else { "http" };
        let bad = |error: tonic::transport::Error| {
            let cause = std::error::Error::source(&error).map(|cause| format!(": {cause}"));
            DcsError::Settings(format!("{}: {error}{}", self.at, cause.unwrap_or_default()))
        };
        let transport = tonic::transport::Endpoint::from_shared(format!("{scheme}://{}", self.at))
            .map_err(bad)?
            .executor(self.tasks.clone())
            .connect_timeout(CONNECT_LIMIT)
            .http2_keep_alive_interval(PING_AFTER)
            .keep_alive_timeout(PING_LIMIT)
            .keep_alive_while_idle(false)
            // How long h2 remembers reset streams is measured on std's clock, which no simulator replaces: never forget any.
            .http2_max_concurrent_reset_streams(100_000)
            .http2_reset_stream_duration(Duration::from_secs(86_400));
        if !self.settings.tls {
            return Ok(transport);
        }
        let mut tls = ClientTlsConfig::new().domain_name(self.at.host.as_str());
        match &self.settings.cacert {
            Some(path) => tls = tls.ca_certificate(Certificate::from_pem(pem("cacert", path)?)),
            None => {
                let bundle = SYSTEM_BUNDLES.iter().map(Path::new).find(|path| path.exists());
                let bundle = bundle.ok_or_else(|| {
                    DcsError::Settings("no system certificates found; set etcd3.cacert".to_owned())
                })?;
                tls = tls.ca_certificate(Certificate::from_pem(pem("cacert", bundle)?));
            }
        }
        if let Some(cert) = &self.settings.cert {
            let key = self.settings.key.as_ref().unwrap_or(cert);
            tls = tls.identity(Identity::from_pem(pem("cert", cert)?, pem("key", key)?));
        }
        transport.tls_config(tls).map_err(bad)
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn pem(what: &str, path: &Path) -> Result<Vec<u8>, DcsError> {
    std::fs::read(path)
        .map_err(|error| DcsError::Settings(format!("etcd3.{what}: cannot read {}: {error}", path.display())))
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// A key of etcd's as we keep it.
pub(super) fn raw_key(kv: &etcd_client::KeyValue) -> RawKey {
    RawKey {
        value: text(kv.value()),
        create_revision: kv.create_revision(),
        mod_revision: kv.mod_revision(),
        lease: kv.lease(),
    }
}

/// Counts connections, to tell a request that cannot have left from one that may have arrived.
#[derive(Default)]
struct Gauge {
    /// Connections made so far.
    dials: AtomicU64,
    /// Connections there are.
    live: AtomicU64,
}

struct Gauged {
    inner: Stream,
    gauge: Arc<Gauge>,
}

impl Drop for Gauged {
    fn drop(&mut self) {
        self.gauge.live.fetch_sub(1, Ordering::SeqCst);
    }
}

impl AsyncRead for Gauged {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_read(cx, buf)
    }
}

impl AsyncWrite for Gauged {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.inner).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_shutdown(cx)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.inner).poll_write_vectored(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        self.inner.is_write_vectored()
    }
}
