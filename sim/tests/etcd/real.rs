//! etcd's own processes, on addresses of their own, ended with the test.

use std::collections::BTreeMap;
use std::net::TcpListener;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use etcd_client::{
    Client, CompareOp, ConnectOptions, DeleteOptions, EventType, GetOptions, LeaseGrantOptions,
    LeaseTimeToLiveOptions, PutOptions, TxnOp, TxnOpResponse, WatchOptions,
};
use surus_sim::model::etcd::api::Range;
use surus_sim::model::etcd::{
    Compare, Delete, Error, Event, Header, KeyValue, Keys, Op, Put, Relation, Request, Response, Target,
    Told, Txn, Watch,
};
use tokio::runtime::Runtime;

use super::{Answer, Asked, Bytes, Cluster};

const ETCD: &str = "/usr/bin/etcd";

/// A port of this address that nobody listens on, below those that the kernel gives to outgoing connections.
fn free_port(address: &str) -> u16 {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    loop {
        let next = std::process::id().wrapping_mul(97) + NEXT.fetch_add(1, Ordering::SeqCst);
        let port = 15_000 + u16::try_from(next % 17_000).unwrap();
        if TcpListener::bind((address, port)).is_ok() {
            return port;
        }
    }
}

struct Member {
    url: String,
    args: Vec<String>,
    child: Option<Child>,
    id: u64,
}

impl Member {
    fn start(&mut self) {
        // A test that aborts leaves no etcd behind.
        let child = Command::new("setpriv")
            .args(["--pdeathsig", "KILL", ETCD])
            .args(&self.args)
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        self.child = Some(child);
    }

    fn stop(&mut self) {
        if let Some(mut child) = self.child.take() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }

    fn signal(&self, signal: rustix::process::Signal) {
        let child = self.child.as_ref().unwrap();
        let pid = rustix::process::Pid::from_raw(i32::try_from(child.id()).unwrap()).unwrap();
        rustix::process::kill_process(pid, signal).unwrap();
    }
}

impl Drop for Member {
    fn drop(&mut self) {
        self.stop();
    }
}

type Tale = Arc<Mutex<Vec<Told<Bytes, Bytes>>>>;

/// A cluster of processes.
pub(crate) struct Real {
    members: Vec<Member>,
    clients: BTreeMap<(usize, bool), Client>,
    watches: BTreeMap<u64, (Tale, tokio::sync::mpsc::UnboundedSender<()>)>,
    runtime: Runtime,
    _directory: tempfile::TempDir,
}

impl Real {
    pub(crate) fn new(count: usize) -> Self {
        assert!(
            Path::new(ETCD).exists(),
            "{ETCD} is missing: these tests compare the model with it (ci/setup installs it; apt install etcd-server)"
        );
        let directory = tempfile::tempdir_in("/dev/shm")
            .or_else(|_| tempfile::tempdir())
            .unwrap();
        let address = |index: usize| format!("127.0.6.{}", index + 1);
        let urls: Vec<(String, String)> = (0..count)
            .map(|index| {
                let address = address(index);
                let url = || format!("http://{address}:{}", free_port(&address));
                (url(), url())
            })
            .collect();
        let all: Vec<String> = urls
            .iter()
            .enumerate()
            .map(|(index, (_, peer))| format!("m{index}={peer}"))
            .collect();
        let mut members: Vec<Member> = urls
            .iter()
            .enumerate()
            .map(|(index, (client, peer))| Member {
                url: client.clone(),
                args: vec![
                    format!("--name=m{index}"),
                    format!(
                        "--data-dir={}",
                        directory.path().join(format!("m{index}")).display()
                    ),
                    format!("--listen-client-urls={client}"),
                    format!("--advertise-client-urls={client}"),
                    format!("--listen-peer-urls={peer}"),
                    format!("--initial-advertise-peer-urls={peer}"),
                    format!("--initial-cluster={}", all.join(",")),
                ],
                child: None,
                id: 0,
            })
            .collect();
        for member in &mut members {
            member.start();
        }
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()
            .unwrap();
        let mut real = Self {
            members,
            clients: BTreeMap::new(),
            watches: BTreeMap::new(),
            runtime,
            _directory: directory,
        };
        for member in 0..count {
            real.members[member].id = real.wait(member);
        }
        real
    }

    /// Waits until a member answers; its id.
    fn wait(&mut self, member: usize) -> u64 {
        for _ in 0..300 {
            if let Some((id, _)) = self.status(member) {
                return id;
            }
            self.sleep(Duration::from_millis(50));
        }
        panic!("member {member} of etcd does not come up");
    }

    fn client(&mut self, member: usize, require_leader: bool) -> Client {
        if let Some(client) = self.clients.get(&(member, require_leader)) {
            return client.clone();
        }
        let options = ConnectOptions::new()
            .with_require_leader(require_leader)
            .with_connect_timeout(Duration::from_secs(2));
        let url = self.members[member].url.clone();
        let client = self
            .runtime
            .block_on(Client::connect([url], Some(options)))
            .unwrap();
        self.clients.insert((member, require_leader), client.clone());
        client
    }

    /// The member's own id, and whom it takes for the leader.
    fn status(&mut self, member: usize) -> Option<(u64, u64)> {
        let mut client = self.client(member, false);
        let limit = Duration::from_millis(800);
        let asked = async { tokio::time::timeout(limit, client.status()).await };
        let status = self.runtime.block_on(asked).ok()?.ok()?;
        Some((status.header()?.member_id(), status.leader()))
    }
}

impl Cluster for Real {
    fn ask(&mut self, member: usize, require_leader: bool, asked: Asked) -> Answer {
        let client = self.client(member, require_leader);
        let limit = Duration::from_secs(20);
        let asked = async { tokio::time::timeout(limit, ask(client, member, asked)).await };
        match self.runtime.block_on(asked).expect("no answer") {
            Ok(answer) => Ok(answer),
            Err(etcd_client::Error::GRpcStatus(status)) => {
                Err((status.code() as i32, status.message().to_owned()))
            }
            Err(other) => Err((2, other.to_string())),
        }
    }

    fn watch(&mut self, member: usize, id: u64, watch: Watch<Bytes>) {
        let client = self.client(member, watch.require_leader);
        let tale = Tale::default();
        let (progress, mut asked) = tokio::sync::mpsc::unbounded_channel();
        self.watches.insert(id, (Arc::clone(&tale), progress));
        self.runtime.spawn(async move {
            let told = |what| tale.lock().unwrap().push(what);
            let mut options = WatchOptions::new().with_start_revision(watch.start);
            let key = match watch.keys {
                Keys::One(key) => key,
                Keys::Between(key, end) => {
                    options = options.with_range(end);
                    key
                }
                Keys::From(key) => {
                    options = options.with_from_key();
                    key
                }
            };
            if watch.previous {
                options = options.with_prev_key();
            }
            let mut stream = match client.watch_client().watch(key, Some(options)).await {
                Ok(stream) => stream,
                Err(error) => return told(Told::Ended(known(&error))),
            };
            loop {
                let message = tokio::select! {
                    _ = asked.recv() => {
                        let _ = stream.request_progress().await;
                        continue;
                    }
                    message = stream.message() => message,
                };
                let response = match message {
                    Ok(Some(response)) => response,
                    Ok(None) => return told(Told::Ended(Error::Stopped)),
                    Err(error) => return told(Told::Ended(known(&error))),
                };
                if response.created() {
                    told(Told::Created);
                }
                if response.canceled() {
                    told(Told::Compacted(response.compact_revision()));
                } else if !response.events().is_empty() {
                    let events = response.events().iter().map(|event| {
                        let mut kv = kv(event.kv().unwrap());
                        if event.event_type() == EventType::Delete {
                            kv.value = None;
                        }
                        Event {
                            kv,
                            previous: event.prev_kv().map(self::kv),
                        }
                    });
                    told(Told::Events(events.collect()));
                } else if !response.created() {
                    told(Told::Progress);
                }
            }
        });
    }

    fn told(&mut self, id: u64) -> Vec<Told<Bytes, Bytes>> {
        self.sleep(Duration::from_millis(250));
        std::mem::take(&mut *self.watches[&id].0.lock().unwrap())
    }

    fn progress(&mut self, id: u64) {
        self.watches[&id].1.send(()).unwrap();
    }

    fn sleep(&mut self, span: Duration) {
        self.runtime
            .block_on(async move { tokio::time::sleep(span).await });
    }

    fn stop(&mut self, member: usize) {
        self.members[member].stop();
    }

    fn start(&mut self, member: usize) {
        self.members[member].start();
        self.clients.retain(|(of, _), _| *of != member);
    }

    fn freeze(&mut self, member: usize) {
        self.members[member].signal(rustix::process::Signal::STOP);
    }

    fn thaw(&mut self, member: usize) {
        self.members[member].signal(rustix::process::Signal::CONT);
    }

    fn leader(&mut self, member: usize) -> Option<usize> {
        let (_, leader) = self.status(member)?;
        self.members.iter().position(|member| member.id == leader)
    }
}

/// The error of the model with the same text.
fn known(error: &etcd_client::Error) -> Error {
    let text = error.to_string();
    let all = [
        Error::NoLeader,
        Error::Stopped,
        Error::LeaderChanged,
        Error::Timeout,
    ];
    all.into_iter()
        .find(|error| text.contains(error.message()))
        .unwrap_or(Error::Stopped)
}

fn kv(kv: &etcd_client::KeyValue) -> KeyValue<Bytes, Bytes> {
    KeyValue {
        key: kv.key().to_vec(),
        value: Some(kv.value().to_vec()),
        create: kv.create_revision(),
        modified: kv.mod_revision(),
        version: kv.version(),
        lease: kv.lease(),
    }
}

async fn ask(
    mut client: Client,
    member: usize,
    asked: Asked,
) -> Result<(Header, Response<Bytes, Bytes>), etcd_client::Error> {
    let header = |header: Option<&etcd_client::ResponseHeader>| Header {
        member,
        term: header.map_or(0, |header| header.raft_term()),
        revision: header.map_or(0, |header| header.revision()),
    };
    Ok(match asked {
        Request::Range(range) => {
            let (key, options) = get(&range);
            let response = client.get(key, Some(options)).await?;
            (header(response.header()), ranged(&response))
        }
        Request::Put(put) => {
            let (key, value, options) = self::put(&put);
            let response = client.put(key, value, Some(options)).await?;
            (
                header(response.header()),
                Response::Put(response.prev_key().map(kv)),
            )
        }
        Request::Delete(delete) => {
            let (key, options) = self::delete(&delete);
            let response = client.delete(key, Some(options)).await?;
            (header(response.header()), deleted(&response))
        }
        Request::Txn(txn) => {
            let response = client.txn(self::txn(&txn)).await?;
            (header(response.header()), done(&response))
        }
        Request::Compact(revision) => {
            let response = client.compact(revision, None).await?;
            (header(response.header()), Response::Compact)
        }
        Request::Grant { id, ttl } => {
            let options = LeaseGrantOptions::new().with_id(id);
            let response = client.lease_grant(ttl, Some(options)).await?;
            let (id, ttl) = (response.id(), response.ttl());
            (header(response.header()), Response::Grant { id, ttl })
        }
        Request::Revoke(id) => {
            let response = client.lease_revoke(id).await?;
            (header(response.header()), Response::Revoke)
        }
        Request::KeepAlive(id) => match client.lease_keep_alive(id).await {
            Ok((mut keeper, mut stream)) => {
                // The library has had the first answer already; this is the second.
                keeper.keep_alive().await?;
                let ttl = stream.message().await?.map_or(0, |response| response.ttl());
                (header(None), Response::KeepAlive { id, ttl })
            }
            Err(etcd_client::Error::LeaseKeepAliveError(_)) => {
                (header(None), Response::KeepAlive { id, ttl: 0 })
            }
            Err(other) => return Err(other),
        },
        Request::TimeToLive(id, keys) => {
            let mut options = LeaseTimeToLiveOptions::new();
            if keys {
                options = options.with_keys();
            }
            let response = client.lease_time_to_live(id, Some(options)).await?;
            let (ttl, granted) = (response.ttl(), response.granted_ttl());
            let mut keys: Vec<Bytes> = response.keys().to_vec();
            keys.sort();
            let response = Response::TimeToLive {
                id,
                ttl,
                granted,
                keys,
            };
            (header(None), response)
        }
        Request::Leases => {
            let response = client.leases().await?;
            let ids = response.leases().iter().map(|lease| lease.id()).collect();
            (header(response.header()), Response::Leases(ids))
        }
        other => panic!("{other:?} is not asked in scripts"),
    })
}

fn get(range: &Range<Bytes>) -> (Bytes, GetOptions) {
    let mut options = GetOptions::new()
        .with_revision(range.revision)
        .with_limit(i64::try_from(range.limit).unwrap());
    if range.serializable {
        options = options.with_serializable();
    }
    if range.count_only {
        options = options.with_count_only();
    }
    match &range.keys {
        Keys::One(key) => (key.clone(), options),
        Keys::Between(key, end) => (key.clone(), options.with_range(end.clone())),
        Keys::From(key) => (key.clone(), options.with_from_key()),
    }
}

fn put(put: &Put<Bytes, Bytes>) -> (Bytes, Bytes, PutOptions) {
    let mut options = PutOptions::new();
    match put.lease {
        Some(lease) => options = options.with_lease(lease),
        None => options = options.with_ignore_lease(),
    }
    if put.value.is_none() {
        options = options.with_ignore_value();
    }
    if put.previous {
        options = options.with_prev_key();
    }
    (put.key.clone(), put.value.clone().unwrap_or_default(), options)
}

fn delete(delete: &Delete<Bytes>) -> (Bytes, DeleteOptions) {
    let mut options = DeleteOptions::new();
    if delete.previous {
        options = options.with_prev_key();
    }
    match &delete.keys {
        Keys::One(key) => (key.clone(), options),
        Keys::Between(key, end) => (key.clone(), options.with_range(end.clone())),
        Keys::From(key) => (key.clone(), options.with_from_key()),
    }
}

fn compare(compare: &Compare<Bytes, Bytes>) -> etcd_client::Compare {
    use etcd_client::Compare as Theirs;
    let is = match compare.is {
        Relation::Equal => CompareOp::Equal,
        Relation::NotEqual => CompareOp::NotEqual,
        Relation::Greater => CompareOp::Greater,
        Relation::Less => CompareOp::Less,
    };
    let (key, end) = match &compare.keys {
        Keys::One(key) => (key.clone(), None),
        Keys::Between(key, end) => (key.clone(), Some(end.clone())),
        Keys::From(key) => (key.clone(), Some(vec![0])),
    };
    let theirs = match &compare.to {
        Target::Version(to) => Theirs::version(key, is, *to),
        Target::Create(to) => Theirs::create_revision(key, is, *to),
        Target::Mod(to) => Theirs::mod_revision(key, is, *to),
        Target::Value(to) => Theirs::value(key, is, to.clone()),
        Target::Lease(to) => Theirs::lease(key, is, *to),
    };
    match end {
        Some(end) => theirs.with_range(end),
        None => theirs,
    }
}

fn op(op: &Op<Bytes, Bytes>) -> TxnOp {
    match op {
        Op::Range(range) => {
            let (key, options) = get(range);
            TxnOp::get(key, Some(options))
        }
        Op::Put(put) => {
            let (key, value, options) = self::put(put);
            TxnOp::put(key, value, Some(options))
        }
        Op::Delete(delete) => {
            let (key, options) = self::delete(delete);
            TxnOp::delete(key, Some(options))
        }
        Op::Txn(txn) => TxnOp::txn(self::txn(txn)),
    }
}

fn txn(txn: &Txn<Bytes, Bytes>) -> etcd_client::Txn {
    etcd_client::Txn::new()
        .when(txn.when.iter().map(compare).collect::<Vec<_>>())
        .and_then(txn.then.iter().map(op).collect::<Vec<_>>())
        .or_else(txn.otherwise.iter().map(op).collect::<Vec<_>>())
}

fn ranged(response: &etcd_client::GetResponse) -> Response<Bytes, Bytes> {
    Response::Range {
        kvs: response.kvs().iter().map(kv).collect(),
        more: response.more(),
        count: usize::try_from(response.count()).unwrap(),
    }
}

fn deleted(response: &etcd_client::DeleteResponse) -> Response<Bytes, Bytes> {
    Response::Delete {
        deleted: usize::try_from(response.deleted()).unwrap(),
        previous: response.prev_kvs().iter().map(kv).collect(),
    }
}

fn done(response: &etcd_client::TxnResponse) -> Response<Bytes, Bytes> {
    let responses = response
        .op_responses()
        .into_iter()
        .map(|response| match response {
            TxnOpResponse::Get(response) => ranged(&response),
            TxnOpResponse::Put(response) => Response::Put(response.prev_key().map(kv)),
            TxnOpResponse::Delete(response) => deleted(&response),
            TxnOpResponse::Txn(response) => done(&response),
        });
    Response::Txn {
        succeeded: response.succeeded(),
        responses: responses.collect(),
    }
}
