//! An agent: [`surus::agent::run`] in a process of the world, on a host's clock, started again by its supervisor when it has ended.

use std::collections::BTreeMap;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use surus::agent::systemd::Systemd;
use surus::agent::{Env, Source, Told};
use surus::clock::Clock;
use surus::config::{self, Problem, Settings, Surroundings};
use surus::net::{Dial, Listener, Network, Stream};
use surus::task::{BoxFuture, Spawn};
use surus_core::types::MonoTime;
use tokio::sync::mpsc;
use tokio::task::AbortHandle;

use super::custody::Holder;
use super::grants::Tap;
use super::hub::Hub;
use super::interpose::EPOCH_SECONDS;
use super::net;
use super::process::Process;
use super::router::Ear;
use super::site::Place;
use super::told::Eye;
use crate::record::Seen;

/// The port of the REST API.
pub const REST: u16 = 8008;

/// The members of an agent's world, from inside its process.
struct Inner {
    hub: Arc<Hub>,
    host: usize,
    process: Process,
}

/// The clocks of a host. Code takes no time in this world, but a real clock that is read twice does not show the same nanosecond:
/// whoever orders what happened by it, as the core does, must be able to.
struct HostClock {
    inner: Arc<Inner>,
    shown: AtomicU64,
}

impl Clock for HostClock {
    fn now(&self) -> MonoTime {
        let now = self.inner.hub.net.now();
        let local = self
            .inner
            .hub
            .look(self.inner.host, |inside| inside.clock.local(now));
        let shown = local.0.max(self.shown.load(Ordering::Relaxed) + 1);
        self.shown.store(shown, Ordering::Relaxed);
        MonoTime(shown)
    }

    fn wall(&self) -> Duration {
        let now = self.inner.hub.net.now();
        let off = self.inner.hub.look(self.inner.host, |inside| inside.wall);
        Duration::from_secs(EPOCH_SECONDS) + Duration::from_nanos(now.saturating_add_signed(off))
    }

    fn sleep_until(&self, at: MonoTime) -> BoxFuture<'_, ()> {
        let hub = &self.inner.hub;
        let until = hub.look(self.inner.host, |inside| inside.clock.world(at));
        let wait = until.saturating_sub(hub.net.now());
        Box::pin(tokio::time::sleep(Duration::from_nanos(wait)))
    }
}

/// The network, as a process uses it.
struct Ports(Arc<Inner>);

impl Dial for Ports {
    fn dial<'a>(&'a self, host: &'a str, port: u16) -> BoxFuture<'a, io::Result<Stream>> {
        let dialling = Arc::clone(&self.0.hub.net).dial(self.0.process.machine(), host, port);
        let peer = self.0.hub.host_named(host).filter(|_| port == REST);
        Box::pin(async move {
            let stream = dialling.await?;
            Ok(match peer {
                Some(peer) => Box::new(Tap::new(stream, Arc::clone(&self.0.hub), self.0.host, peer)),
                None => Box::new(stream) as Stream,
            })
        })
    }
}

impl Network for Ports {
    fn listen<'a>(&'a self, _: &'a str, port: u16, _: u32) -> BoxFuture<'a, io::Result<Box<dyn Listener>>> {
        let listening = Arc::clone(&self.0.hub.net).listen(self.0.process.machine(), port);
        let inside = Arc::clone(&self.0);
        Box::pin(async move {
            let door = Door {
                listener: listening.await?,
                inside,
            };
            Ok(Box::new(door) as Box<dyn Listener>)
        })
    }

    fn resolve(&self, _: String) -> BoxFuture<'_, Vec<IpAddr>> {
        Box::pin(std::future::ready(Vec::new()))
    }
}

/// A listener of the network, as the agent takes it.
struct Door {
    listener: Box<dyn net::Listener>,
    inside: Arc<Inner>,
}

impl Listener for Door {
    fn accept(&mut self) -> BoxFuture<'_, io::Result<(Stream, SocketAddr)>> {
        Box::pin(async {
            let (stream, peer) = self.listener.accept().await?;
            let ear = Ear::new(stream, Arc::clone(&self.inside.hub), self.inside.host);
            Ok((Box::new(ear) as Stream, peer))
        })
    }
}

/// The tasks of a process.
struct Tasks(Process);

impl Spawn for Tasks {
    fn spawn(&self, task: BoxFuture<'static, ()>) -> AbortHandle {
        self.0.spawn(task)
    }
}

/// A member's configuration file.
#[derive(Debug, Clone)]
pub struct File(pub String);

impl Source for File {
    fn load(&self) -> Result<(Settings, Vec<Problem>), Vec<Problem>> {
        let environment = [("PATRONI_CONFIGURATION".to_owned(), self.0.clone())];
        let around = Surroundings {
            environment: BTreeMap::from(environment),
            current_dir: PathBuf::from("/"),
        };
        config::load(None, &around)
    }
}

/// An agent that was started.
#[derive(Debug)]
pub struct Agent {
    /// Its process.
    pub process: Process,
    told: mpsc::UnboundedSender<Told>,
}

impl Agent {
    /// Starts the agent of a host. `ended` hears when it ends by itself: the host, and whether that was a failure.
    ///
    /// # Errors
    /// Its configuration is wrong, in words.
    pub fn start(
        hub: &Arc<Hub>,
        host: usize,
        file: &File,
        ended: mpsc::UnboundedSender<(usize, bool)>,
    ) -> Result<Self, String> {
        let (settings, _) = file.load().map_err(|problems| config::render(&problems))?;
        let machine = hub.hosts[host].machine;
        let process = Process::new(
            Arc::clone(&hub.net),
            machine,
            format!("agent of {}", settings.name),
        );
        let inner = Arc::new(Inner {
            hub: Arc::clone(hub),
            host,
            process: process.clone(),
        });
        let (sender, told) = mpsc::unbounded_channel();
        let env = Env {
            clock: Arc::new(HostClock {
                inner: Arc::clone(&inner),
                shown: AtomicU64::new(0),
            }),
            net: Arc::new(Ports(Arc::clone(&inner))),
            tasks: Arc::new(Tasks(process.clone())),
            source: Arc::new(file.clone()),
            custody: Arc::new(Holder::new(Arc::clone(hub), host)),
            site: Arc::new(Place::new(Arc::clone(hub), host, process.clone())),
            told,
            systemd: Systemd::none(),
            observer: Some(Box::new(Eye::new(Arc::clone(hub), host))),
            log: None,
        };
        hub.see(Some(host), Seen::AgentBegan);
        let world = Arc::clone(hub);
        process.spawn(Box::pin(async move {
            let ending = surus::agent::run(settings, env).await;
            let (reason, detach, failure) = match ending {
                Ok(ending) => (ending.reason, ending.detach, ending.failure),
                Err(text) => (text, true, true),
            };
            let reason = Arc::from(reason.as_str());
            world.see(Some(host), Seen::AgentEnded { reason, detach });
            // Nobody supervises it any more when the world ends.
            let _ = ended.send((host, failure));
        }));
        Ok(Self {
            process,
            told: sender,
        })
    }

    /// SIGTERM, or another signal.
    pub fn tell(&self, told: Told) {
        // One that has ended hears nothing.
        let _ = self.told.send(told);
    }
}
