//! A world with one host, a network of pipes, nothing in the data directory, and an etcd that refuses or swallows connections.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsString;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, Weak};
use std::task::{Context, Poll};
use std::time::Duration;

use serde_json::Value;
use surus::agent::{Custody, Env, Found as Guarded, GuardNews, Observer, Source, Told, systemd::Systemd};
use surus::clock::Clock;
use surus::config::settings::{Bootstrap, CustomMethod, PostgresSettings};
use surus::config::{Problem, Settings, Surroundings};
use surus::net::{Dial, Listener, Network, Stream};
use surus::postgres::site::{
    Address, Configuration, ControlFile, Divergence, Found, Gate, Launch, Look, OnProgress, Operation,
    PidFile, Question, Unfinished,
};
use surus::postgres::{ControlError, ControlStatus, Error, ProcessControl, Signal, Site, StartRequest};
use surus::task::{BoxFuture, Tokio};
use surus_core::action::Upstream;
use surus_core::types::{Generation, MonoTime, Timeline};
use tokio::io::{AsyncRead, AsyncWrite, DuplexStream, ReadBuf};
use tokio::sync::mpsc;
use tokio::time::Instant;

pub(crate) const REST: u16 = 8008;
pub(crate) const ETCD: u16 = 2379;

const SETTINGS: &str = "
scope: main
name: n1
etcd3: {hosts: ['etcd:2379']}
restapi: {listen: 'n1:8008', connect_address: 'n1:8008'}
postgresql:
  listen: n1:5432
  connect_address: n1:5432
  data_dir: /data
  pgpass: /pgpass
  authentication:
    superuser: {username: postgres, password: x}
    replication: {username: replicator, password: x}
";

pub(crate) struct World {
    myself: Weak<Self>,
    begun: Instant,
    told: Mutex<Option<mpsc::UnboundedSender<Told>>>,
    ports: Mutex<BTreeMap<u16, mpsc::UnboundedSender<Pipe>>>,
    dialled: Mutex<BTreeMap<u16, usize>>,
    swallowed: Mutex<Vec<DuplexStream>>,
    swallow: AtomicBool,
    hang: AtomicBool,
    hanging: AtomicUsize,
    loads: AtomicUsize,
    streams: Arc<AtomicUsize>,
    /// For the next agent that begins.
    pub(crate) observer: Mutex<Option<Box<dyn Observer>>>,
}

impl World {
    pub(crate) fn new() -> Arc<Self> {
        Arc::new_cyclic(|myself| Self {
            myself: myself.clone(),
            begun: Instant::now(),
            told: Mutex::default(),
            ports: Mutex::default(),
            dialled: Mutex::default(),
            swallowed: Mutex::default(),
            swallow: AtomicBool::new(false),
            hang: AtomicBool::new(false),
            hanging: AtomicUsize::new(0),
            loads: AtomicUsize::new(0),
            streams: Arc::default(),
            observer: Mutex::default(),
        })
    }

    fn me(&self) -> Arc<Self> {
        self.myself.upgrade().unwrap()
    }

    pub(crate) fn dial(&self) -> Arc<dyn Dial> {
        self.me()
    }

    pub(crate) fn env(&self) -> Env {
        let (sender, told) = mpsc::unbounded_channel();
        *self.told.lock().unwrap() = Some(sender);
        Env {
            clock: self.me(),
            net: self.me(),
            tasks: Arc::new(Tokio),
            source: self.me(),
            custody: self.me(),
            site: self.me(),
            told,
            systemd: Systemd::none(),
            observer: self.observer.lock().unwrap().take(),
            log: None,
        }
    }

    pub(crate) fn tell(&self, what: Told) {
        self.told.lock().unwrap().as_ref().unwrap().send(what).unwrap();
    }

    /// How often `port` was dialled.
    pub(crate) fn dialled(&self, port: u16) -> usize {
        self.dialled
            .lock()
            .unwrap()
            .get(&port)
            .copied()
            .unwrap_or_default()
    }

    /// Ends of connections that somebody holds.
    pub(crate) fn streams(&self) -> usize {
        self.streams.load(Ordering::Relaxed)
    }

    /// From now on etcd takes connections and says nothing.
    pub(crate) fn swallow(&self, swallow: bool) {
        self.swallow.store(swallow, Ordering::Relaxed);
    }

    /// From now on the disk does not answer.
    pub(crate) fn hang(&self) {
        self.hang.store(true, Ordering::Relaxed);
    }

    /// Questions that the disk has not answered.
    pub(crate) fn hanging(&self) -> usize {
        self.hanging.load(Ordering::Relaxed)
    }

    /// `value` from the disk.
    fn disk<'a, T: Send + 'a>(&'a self, value: T) -> BoxFuture<'a, T> {
        Box::pin(async move {
            if self.hang.load(Ordering::Relaxed) {
                self.hanging.fetch_add(1, Ordering::Relaxed);
                return std::future::pending().await;
            }
            value
        })
    }

    fn pipe(&self, inner: DuplexStream) -> Pipe {
        self.streams.fetch_add(1, Ordering::Relaxed);
        Pipe {
            inner,
            streams: Arc::clone(&self.streams),
        }
    }
}

impl Clock for World {
    fn now(&self) -> MonoTime {
        MonoTime::ZERO.plus(self.begun.elapsed())
    }

    fn wall(&self) -> Duration {
        Duration::from_secs(1_795_172_288) + self.begun.elapsed()
    }
}

impl Source for World {
    fn load(&self) -> Result<(Settings, Vec<Problem>), Vec<Problem>> {
        // Each time something else.
        let load = self.loads.fetch_add(1, Ordering::Relaxed);
        let text = format!("{SETTINGS}tags: {{load: {load}}}\n");
        let around = Surroundings {
            environment: [("PATRONI_CONFIGURATION".to_owned(), text)].into(),
            current_dir: "/".into(),
        };
        surus::config::load(None, &around)
    }
}

/// An end of a connection, counted while it is held.
struct Pipe {
    inner: DuplexStream,
    streams: Arc<AtomicUsize>,
}

impl Drop for Pipe {
    fn drop(&mut self) {
        self.streams.fetch_sub(1, Ordering::Relaxed);
    }
}

impl AsyncRead for Pipe {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_read(cx, buf)
    }
}

impl AsyncWrite for Pipe {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.inner).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_shutdown(cx)
    }
}

impl Dial for World {
    fn dial<'a>(&'a self, _host: &'a str, port: u16) -> BoxFuture<'a, io::Result<Stream>> {
        Box::pin(async move {
            tokio::time::sleep(Duration::from_millis(1)).await;
            *self.dialled.lock().unwrap().entry(port).or_default() += 1;
            let (near, far) = tokio::io::duplex(1024);
            if port == ETCD && self.swallow.load(Ordering::Relaxed) {
                self.swallowed.lock().unwrap().push(far);
                return Ok(Box::new(self.pipe(near)) as Stream);
            }
            let listener = self.ports.lock().unwrap().get(&port).cloned();
            let refused = || io::Error::from(io::ErrorKind::ConnectionRefused);
            let far = self.pipe(far);
            listener.ok_or_else(refused)?.send(far).map_err(|_| refused())?;
            Ok(Box::new(self.pipe(near)) as Stream)
        })
    }
}

struct Accept(mpsc::UnboundedReceiver<Pipe>);

impl Listener for Accept {
    fn accept(&mut self) -> BoxFuture<'_, io::Result<(Stream, SocketAddr)>> {
        Box::pin(async {
            match self.0.recv().await {
                Some(stream) => Ok((Box::new(stream) as Stream, ([10, 0, 0, 7], 1).into())),
                None => std::future::pending().await,
            }
        })
    }
}

impl Network for World {
    fn listen<'a>(
        &'a self,
        _host: &'a str,
        port: u16,
        _backlog: u32,
    ) -> BoxFuture<'a, io::Result<Box<dyn Listener>>> {
        Box::pin(async move {
            let mut ports = self.ports.lock().unwrap();
            if ports.get(&port).is_some_and(|listener| !listener.is_closed()) {
                return Err(io::ErrorKind::AddrInUse.into());
            }
            let (sender, receiver) = mpsc::unbounded_channel();
            ports.insert(port, sender);
            Ok(Box::new(Accept(receiver)) as Box<dyn Listener>)
        })
    }

    fn resolve(&self, _host: String) -> BoxFuture<'_, Vec<IpAddr>> {
        ready(Vec::new())
    }
}

fn ready<'a, T: Send + 'a>(value: T) -> BoxFuture<'a, T> {
    Box::pin(std::future::ready(value))
}

fn nothing<'a, T: Send + 'a>() -> BoxFuture<'a, Result<T, Error>> {
    ready(Err(Error::Condition("there is nothing here".to_owned())))
}

impl ProcessControl for World {
    fn start(&self, _: StartRequest) -> BoxFuture<'_, Result<u32, ControlError>> {
        ready(Err(ControlError("nothing to start".to_owned())))
    }
    fn signal(&self, _: Signal) -> BoxFuture<'_, Result<(), ControlError>> {
        ready(Ok(()))
    }
    fn set_deadline(&self, _: Option<MonoTime>, _: Generation) -> BoxFuture<'_, Result<(), ControlError>> {
        ready(Ok(()))
    }
    fn adopt(&self, _: u32) -> BoxFuture<'_, Result<(), ControlError>> {
        ready(Ok(()))
    }
    fn status(&self) -> BoxFuture<'_, Result<ControlStatus, ControlError>> {
        ready(Ok(ControlStatus::default()))
    }
    fn wait_exit(&self) -> BoxFuture<'_, Result<(), ControlError>> {
        ready(Ok(()))
    }
}

impl Custody for World {
    fn find(&self, _: mpsc::UnboundedSender<GuardNews>) -> BoxFuture<'_, Option<Guarded>> {
        ready(None)
    }
    fn quit(&self) -> BoxFuture<'_, ()> {
        ready(())
    }
}

/// An empty directory, and no tool that works.
impl Site for World {
    fn obey(&self, settings: Arc<PostgresSettings>) {
        assert_eq!(settings.data_dir, Path::new("/data"));
    }
    fn look(&self) -> BoxFuture<'_, Look> {
        self.disk(Look::default())
    }
    fn alive(&self, _: u32) -> BoxFuture<'_, bool> {
        ready(false)
    }
    fn users(&self) -> BoxFuture<'_, BTreeSet<u32>> {
        ready(BTreeSet::new())
    }
    fn inspect(&self, _: Option<u32>) -> BoxFuture<'_, Found> {
        ready(Found::Empty)
    }
    fn control_file(&self) -> BoxFuture<'_, Result<ControlFile, Error>> {
        nothing()
    }
    fn unfinished(&self) -> BoxFuture<'_, Option<Unfinished>> {
        ready(None)
    }
    fn history(&self, _: Timeline) -> BoxFuture<'_, Option<String>> {
        ready(None)
    }
    fn synchronous(&self) -> BoxFuture<'_, Option<surus_core::sync::Names>> {
        ready(None)
    }
    fn gate(&self) -> BoxFuture<'_, Option<Gate>> {
        ready(None)
    }
    fn is_here(&self, _: String) -> BoxFuture<'_, bool> {
        ready(false)
    }
    fn major(&self) -> BoxFuture<'_, Result<u32, Error>> {
        ready(Ok(15))
    }
    fn fitting<'a>(
        &'a self,
        wanted: &'a BTreeMap<String, String>,
    ) -> BoxFuture<'a, Result<BTreeMap<String, String>, Error>> {
        ready(Ok(wanted.clone()))
    }
    fn launch(&self, _: &BTreeMap<String, String>) -> Launch {
        Launch {
            program: PathBuf::from("postgres"),
            args: Vec::<OsString>::new(),
            env: Vec::new(),
            cwd: PathBuf::from("/data"),
        }
    }
    fn signal(&self, _: u32, _: Signal) -> BoxFuture<'_, Result<(), Error>> {
        ready(Ok(()))
    }
    fn promote(&self) -> BoxFuture<'_, Result<(), Error>> {
        nothing()
    }
    fn wake(&self, _: u32) -> BoxFuture<'_, ()> {
        ready(())
    }
    fn clear_strays(&self) -> BoxFuture<'_, Result<(), Error>> {
        ready(Ok(()))
    }
    fn configure<'a>(&'a self, _: &'a Configuration) -> BoxFuture<'a, Result<bool, Error>> {
        nothing()
    }
    fn prepare(&self, _: bool) -> BoxFuture<'_, Result<bool, Error>> {
        nothing()
    }
    fn set_standby(&self, _: bool) -> BoxFuture<'_, Result<(), Error>> {
        nothing()
    }
    fn remove_stale_pid_file(&self) -> BoxFuture<'_, Result<(), Error>> {
        ready(Ok(()))
    }
    fn reserve(&self, _: Timeline) -> BoxFuture<'_, Result<(), Error>> {
        nothing()
    }
    fn keep_passwords<'a>(&'a self, _: &'a Address) -> BoxFuture<'a, Result<(), Error>> {
        ready(Ok(()))
    }
    fn kept_dynamic(&self) -> BoxFuture<'_, Option<Value>> {
        ready(None)
    }
    fn keep_dynamic<'a>(&'a self, _: &'a Value) -> BoxFuture<'a, ()> {
        self.disk(())
    }
    fn ask<'a>(&'a self, _: Question<'a>) -> BoxFuture<'a, Result<String, Error>> {
        nothing()
    }
    fn begin(&self, _: Operation) -> BoxFuture<'_, Result<(), Error>> {
        nothing()
    }
    fn finish(&self, _: Operation) -> BoxFuture<'_, Result<(), Error>> {
        nothing()
    }
    fn abandon(&self, _: Operation) -> BoxFuture<'_, Result<(), Error>> {
        nothing()
    }
    fn create<'a>(&'a self, _: &'a Bootstrap) -> BoxFuture<'a, Result<(), Error>> {
        nothing()
    }
    fn post_bootstrap<'a>(&'a self, _: PidFile, _: &'a str) -> BoxFuture<'a, Result<(), Error>> {
        nothing()
    }
    fn copy_from<'a>(
        &'a self,
        _: &'a Upstream,
        _: Option<&'a CustomMethod>,
        _: OnProgress<'a>,
    ) -> BoxFuture<'a, Result<(), Error>> {
        nothing()
    }
    fn keep_diverged(&self, _: Divergence) -> BoxFuture<'_, Result<(), Error>> {
        nothing()
    }
    fn rewind<'a>(
        &'a self,
        _: &'a Address,
        _: &'a str,
        _: OnProgress<'a>,
    ) -> BoxFuture<'a, Result<(), Error>> {
        nothing()
    }
    fn hook<'a>(&'a self, _: &'static str, _: &'a str, _: Duration) -> BoxFuture<'a, Result<(), Error>> {
        nothing()
    }
    fn callback(&self, _: &'static str, _: &'static str) {}
}
