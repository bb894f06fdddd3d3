//! The etcd model, served: each member on a machine of its own, over HTTP/2, to whoever dials it.
//!
//! The model is one value that all members share. A request comes from a connection, and the answer goes back when the model says it
//! leaves; if the member has been killed by then, nobody waits for it any more.

mod proto;
mod serve;

use std::collections::BTreeMap;
use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::{Notify, mpsc, oneshot};

use super::net::{Machine, Net};
use super::process::Process;
use crate::clock::Time;
use crate::model::etcd::{Call, Error, Etcd, Header, Links, Output, Request, Settings, Told, Watch};
use proto::{Answered, Asked, Octets};

/// The port of etcd's clients.
pub const PORT: u16 = 2379;

type Reply = Result<(Header, Answered), Error>;
type Message = (Header, Told<Octets, Octets>);

struct Inner {
    model: Etcd<Octets, Octets>,
    out: Vec<Output<Octets, Octets>>,
    /// What leaves a member later.
    leaving: BTreeMap<(Time, u64), Output<Octets, Octets>>,
    sequence: u64,
    calls: BTreeMap<u64, oneshot::Sender<Reply>>,
    watches: BTreeMap<u64, mpsc::UnboundedSender<Message>>,
    next: u64,
    members: Vec<Process>,
    answers: Answers,
    /// The keep-alives under way: whose, and when they came.
    keeping: BTreeMap<u64, (i64, Time)>,
}

/// What has been answered and leaves no trace in the store.
#[derive(Debug, Default)]
pub struct Answers {
    /// When the last keep-alive of each lease came that was answered, and in which term it was.
    kept: BTreeMap<i64, (Time, u64)>,
}

impl Answers {
    /// When the last keep-alive of a lease came that was answered.
    #[must_use]
    pub fn kept(&self, lease: i64) -> Option<Time> {
        self.kept.get(&lease).map(|(came, _)| *came)
    }

    fn take(&mut self, now: Time, header: Header, answer: &Answered, keeping: Option<(i64, Time)>) {
        match (answer, keeping) {
            (Answered::KeepAlive { ttl, .. }, Some((lease, came))) if 0 < *ttl => {
                // One that waited for a leader may be answered after another that came later, and by a member that has not heard of it.
                let kept = self.kept.entry(lease).or_insert((came, header.term));
                if kept.1 < header.term {
                    *kept = (came, header.term);
                } else if kept.1 == header.term {
                    kept.0 = kept.0.max(came);
                }
            }
            (Answered::Grant { id, .. }, _) => drop(self.kept.insert(*id, (now, header.term))),
            _ => {}
        }
    }
}

/// Is told of every change of the agreed store.
pub type Observer = Box<dyn FnMut(&Etcd<Octets, Octets>, &Answers) + Send>;

/// A cluster of etcd.
#[derive(Clone)]
pub struct Ensemble(Arc<Shared>);

struct Shared {
    inner: Mutex<Inner>,
    net: Arc<dyn Net>,
    machines: Vec<Machine>,
    changed: Notify,
    observer: Mutex<Option<Observer>>,
}

impl std::fmt::Debug for Ensemble {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Ensemble({:?})", self.0.machines)
    }
}

impl Ensemble {
    /// A cluster whose members run on these machines, and are started.
    #[must_use]
    pub fn start(net: &Arc<dyn Net>, machines: &[Machine], settings: Settings, seed: u64) -> Self {
        let settings = Settings {
            members: machines.len(),
            ..settings
        };
        let members = machines
            .iter()
            .map(|machine| Process::new(Arc::clone(net), *machine, "etcd"))
            .collect();
        let ensemble = Self(Arc::new(Shared {
            inner: Mutex::new(Inner {
                model: Etcd::new(settings, seed),
                out: Vec::new(),
                leaving: BTreeMap::new(),
                sequence: 0,
                calls: BTreeMap::new(),
                watches: BTreeMap::new(),
                next: 0,
                members,
                answers: Answers::default(),
                keeping: BTreeMap::new(),
            }),
            net: Arc::clone(net),
            machines: machines.to_vec(),
            changed: Notify::new(),
            observer: Mutex::default(),
        }));
        for member in 0..machines.len() {
            ensemble.serve(member);
        }
        let clockwork = ensemble.clone();
        net.start(machines[0], Box::pin(async move { clockwork.run().await }));
        ensemble
    }

    /// Tells `observer` of changes from now on.
    pub fn observe(&self, observer: Observer) {
        *self.0.observer.lock().unwrap_or_else(PoisonError::into_inner) = Some(observer);
    }

    /// SIGKILL to a member.
    pub fn kill(&self, member: usize) {
        let process = self.inner().members[member].clone();
        process.kill();
        self.with(|now, inner| inner.model.stop(now, member, &mut inner.out));
    }

    /// A member that was killed is started again.
    pub fn revive(&self, member: usize) {
        if self.inner().members[member].alive() {
            return;
        }
        let process = Process::new(Arc::clone(&self.0.net), self.0.machines[member], "etcd");
        self.inner().members[member] = process;
        self.with(|now, inner| inner.model.start(now, member, &mut inner.out));
        self.serve(member);
    }

    /// SIGSTOP to a member, or SIGCONT.
    pub fn freeze(&self, member: usize, frozen: bool) {
        let process = self.inner().members[member].clone();
        self.with(|now, inner| {
            if frozen {
                inner.model.freeze(now, member, &mut inner.out);
            } else {
                inner.model.thaw(now, member, &mut inner.out);
            }
        });
        if frozen {
            process.freeze();
        } else {
            process.thaw();
        }
    }

    /// The links between machines have changed: so have those between the members.
    pub fn relink(&self) {
        let machines = &self.0.machines;
        let links = Links::of(|from, to| match (machines.get(from), machines.get(to)) {
            (Some(from), Some(to)) => self.0.net.reaches(*from, *to),
            _ => true,
        });
        self.with(|now, inner| inner.model.set_links(now, links, &mut inner.out));
    }

    /// A person's request, put to the leader, if there is one; nobody waits for the answer.
    pub fn order(&self, request: Request<Vec<u8>, Vec<u8>>) {
        self.with(|now, inner| {
            inner.next += 1;
            let call = Call::new(inner.next);
            if let Some(leader) = inner.model.leader() {
                inner.model.handle(now, leader, call, request, &mut inner.out);
            }
        });
    }

    /// Every watch ends with this error.
    pub fn end_watches(&self, error: Error) {
        self.with(|now, inner| {
            for member in 0..inner.members.len() {
                inner.model.end_watches(now, member, error, &mut inner.out);
            }
        });
    }

    /// No more mischief.
    pub fn behave(&self) {
        self.model(|_, model| model.behave());
    }

    /// Looks at the model, or does something to it.
    pub fn model<T>(&self, what: impl FnOnce(Time, &mut Etcd<Vec<u8>, Vec<u8>>) -> T) -> T {
        let now = self.0.net.now();
        what(now, &mut self.inner().model)
    }

    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.0.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Does something to the model, and takes what comes out on its way.
    fn with(&self, what: impl FnOnce(Time, &mut Inner)) {
        let now = self.0.net.now();
        let mut inner = self.inner();
        let before = inner.point();
        what(now, &mut inner);
        inner.collect();
        inner.deliver(now);
        self.tell(before, &inner);
        drop(inner);
        self.0.changed.notify_one();
    }

    fn tell(&self, before: Point, inner: &Inner) {
        if inner.point() != before
            && let Some(observer) = &mut *self.0.observer.lock().unwrap_or_else(PoisonError::into_inner)
        {
            observer(&inner.model, &inner.answers);
        }
    }

    /// Lets the model's time pass.
    async fn run(self) {
        loop {
            let now = self.0.net.now();
            let next = {
                let mut inner = self.inner();
                let before = inner.point();
                let Inner { model, out, .. } = &mut *inner;
                model.tick(now, out);
                inner.collect();
                inner.deliver(now);
                self.tell(before, &inner);
                inner.due()
            };
            let wait = Duration::from_nanos(next.saturating_sub(self.0.net.now()));
            tokio::select! { biased;
                () = self.0.changed.notified() => {}
                () = tokio::time::sleep(wait), if next != Time::MAX => {}
            }
        }
    }

    async fn ask(&self, member: usize, require_leader: bool, asked: Asked) -> Reply {
        let (sender, reply) = oneshot::channel();
        self.with(|now, inner| {
            inner.next += 1;
            let id = inner.next;
            inner.calls.insert(id, sender);
            if let Asked::KeepAlive(lease) = &asked {
                inner.keeping.insert(id, (*lease, now));
            }
            let call = Call {
                require_leader,
                ..Call::new(id)
            };
            inner.model.handle(now, member, call, asked, &mut inner.out);
        });
        reply.await.unwrap_or(Err(Error::Stopped))
    }

    fn watch(&self, member: usize, watch: Watch<Octets>) -> (u64, mpsc::UnboundedReceiver<Message>) {
        let (sender, messages) = mpsc::unbounded_channel();
        let mut id = 0;
        self.with(|now, inner| {
            inner.next += 1;
            id = inner.next;
            inner.watches.insert(id, sender);
            inner.model.watch(now, member, id, watch, &mut inner.out);
        });
        (id, messages)
    }

    fn unwatch(&self, id: u64) {
        let mut inner = self.inner();
        inner.watches.remove(&id);
        inner.model.unwatch(id);
    }

    fn progress(&self, id: u64) {
        self.with(|now, inner| inner.model.progress(now, id, &mut inner.out));
    }

    /// Accepts connections to a member.
    fn serve(&self, member: usize) {
        let process = self.inner().members[member].clone();
        let (ensemble, inside) = (self.clone(), process.clone());
        process.spawn(Box::pin(async move {
            let listening = Arc::clone(inside.net()).listen(inside.machine(), PORT).await;
            let failed: io::Error = match listening {
                Ok(mut listener) => loop {
                    match listener.accept().await {
                        Ok((stream, _)) => serve::connection(&ensemble, member, &inside, stream),
                        Err(error) => break error,
                    }
                },
                Err(error) => error,
            };
            // A model of etcd that cannot be reached would make every check vacuous.
            panic!("etcd member {member} cannot listen: {failed}");
        }));
    }
}

/// Revision, term and leader: what an observer wants to know of.
type Point = (i64, u64, Option<usize>);

impl Inner {
    fn point(&self) -> Point {
        let model = &self.model;
        (model.revision(), model.term(), model.leader())
    }

    fn collect(&mut self) {
        for output in self.out.drain(..) {
            let (Output::Answer { at, .. } | Output::Watch { at, .. }) = &output;
            self.sequence += 1;
            self.leaving.insert((*at, self.sequence), output);
        }
    }

    fn deliver(&mut self, now: Time) {
        while let Some(entry) = self.leaving.first_entry()
            && entry.key().0 <= now
        {
            // Whoever asked may be gone.
            match entry.remove() {
                Output::Answer {
                    call, header, result, ..
                } => {
                    let keeping = self.keeping.remove(&call);
                    if let Ok(answer) = &result {
                        self.answers.take(now, header, answer, keeping);
                    }
                    if let Some(caller) = self.calls.remove(&call) {
                        let _ = caller.send(result.map(|response| (header, response)));
                    }
                }
                Output::Watch {
                    watch, header, told, ..
                } => {
                    if let Some(watcher) = self.watches.get(&watch) {
                        let _ = watcher.send((header, told));
                    }
                }
            }
        }
    }

    fn due(&self) -> Time {
        let leaving = self.leaving.first_key_value().map(|((at, _), _)| *at);
        leaving.unwrap_or(Time::MAX).min(self.model.next_deadline())
    }
}
