//! A node that does not exist, behind a real server on a real socket.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use serde_json::Value;
use surus::config::settings::{HostPort, RestApi, Tags, VerifyClient};
use surus::dcs::snapshot::{RawCluster, RawKey, Snapshot};
use surus::net::Tcp;
use surus::published::Publisher;
use surus::rest::backend::{Backend, BoxFuture, DcsError, FailsafeAnswer, FailsafeAsk, Reply};
use surus::rest::state::{ClusterStatus, Explanation, PostgresStatus, ServerDetail, Timing, WalSender};
use surus::rest::{Limits, NodeStatus, Rest};
use surus_core::input::OperatorOrder;
use surus_core::types::{LeaseId, Lsn, MonoTime, NodeName, Revision, SystemId, Timeline};
use surus_core::view::{
    ClusterView, DataDir, Due, FailoverKey, LeaderKey, Member, PeerStatus, PostgresView, Process, Seen,
    Server, ServerRole, Status,
};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

pub(crate) const NOW: MonoTime = MonoTime(1_000_000_000_000);
pub(crate) const WALL: Duration = Duration::from_secs(1_795_166_718);

/// Records what it is asked, and answers as told.
pub(crate) struct Fake {
    pub(crate) now: AtomicU64,
    pub(crate) wall: AtomicU64,
    pub(crate) calls: Mutex<Vec<String>>,
    pub(crate) snapshot: Mutex<Result<Snapshot, DcsError>>,
    pub(crate) write: Mutex<Result<i64, DcsError>>,
    pub(crate) reply: Mutex<Reply>,
    pub(crate) failsafe: Mutex<FailsafeAnswer>,
    pub(crate) peer: Mutex<Option<PeerStatus>>,
    pub(crate) order_takes: Mutex<Duration>,
    /// Nothing is answered any more.
    pub(crate) wedged: AtomicBool,
}

impl Fake {
    pub(crate) fn new(snapshot: Snapshot) -> Arc<Self> {
        Arc::new(Self {
            now: AtomicU64::new(NOW.0),
            wall: AtomicU64::new(WALL.as_millis() as u64),
            calls: Mutex::default(),
            snapshot: Mutex::new(Ok(snapshot)),
            write: Mutex::new(Ok(101)),
            reply: Mutex::new(Reply {
                ok: true,
                text: String::new(),
            }),
            failsafe: Mutex::new(FailsafeAnswer::Accepted),
            peer: Mutex::new(Some(good_peer())),
            order_takes: Mutex::new(Duration::ZERO),
            wedged: AtomicBool::new(false),
        })
    }

    async fn hang_if_wedged(&self) {
        if self.wedged.load(Ordering::SeqCst) {
            std::future::pending::<()>().await;
        }
    }

    fn called(&self, call: impl Into<String>) {
        self.calls.lock().unwrap().push(call.into());
    }

    pub(crate) fn take_calls(&self) -> Vec<String> {
        std::mem::take(&mut *self.calls.lock().unwrap())
    }

    /// Waits until a call that begins so was made.
    pub(crate) async fn until_called(&self, prefix: &str) {
        for _ in 0..500 {
            if self
                .calls
                .lock()
                .unwrap()
                .iter()
                .any(|call| call.starts_with(prefix))
            {
                return;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        panic!("no call {prefix}: {:?}", self.calls.lock().unwrap());
    }
}

pub(crate) fn good_peer() -> PeerStatus {
    PeerStatus {
        running: true,
        primary: false,
        position: Some(Lsn(100)),
        timeline: Some(Timeline(1)),
        nofailover: false,
        failover_priority: 1,
        stands: None,
        can_take_lock: Some(true),
    }
}

impl Backend for Fake {
    fn now(&self) -> MonoTime {
        MonoTime(self.now.load(Ordering::SeqCst))
    }

    fn wall(&self) -> Duration {
        Duration::from_millis(self.wall.load(Ordering::SeqCst))
    }

    fn order(&self, order: OperatorOrder) -> BoxFuture<'_, Reply> {
        Box::pin(async move {
            self.hang_if_wedged().await;
            self.called(format!("order {order:?}"));
            let takes = *self.order_takes.lock().unwrap();
            tokio::time::sleep(takes).await;
            self.reply.lock().unwrap().clone()
        })
    }

    fn reload(&self) {
        self.called("reload");
    }

    fn wake(&self) {
        self.called("wake");
    }

    fn explain(&self) -> BoxFuture<'_, Option<Explanation>> {
        let wedged = self.wedged.load(Ordering::SeqCst);
        let explanation = Explanation {
            json: serde_json::json!({"rule": "R10"}),
            text: "R10: holds the lock and renews it".to_owned(),
        };
        Box::pin(async move { (!wedged).then_some(explanation) })
    }

    fn read_cluster(&self) -> BoxFuture<'_, Result<Snapshot, DcsError>> {
        Box::pin(async move { self.snapshot.lock().unwrap().clone() })
    }

    fn check_config(&self, config: &Value) -> Result<(), String> {
        match config.get("ttl") {
            Some(ttl) if ttl.as_u64().is_none() => Err(format!("ttl must be a number of seconds, not {ttl}")),
            _ => Ok(()),
        }
    }

    fn cas_config(&self, config: Value, expected: i64) -> BoxFuture<'_, Result<(), DcsError>> {
        Box::pin(async move {
            self.hang_if_wedged().await;
            self.called(format!("cas_config {expected} {config}"));
            self.write.lock().unwrap().clone().map(|_| ())
        })
    }

    fn put_config(&self, config: Value) -> BoxFuture<'_, Result<(), DcsError>> {
        Box::pin(async move {
            self.hang_if_wedged().await;
            self.called(format!("put_config {config}"));
            self.write.lock().unwrap().clone().map(|_| ())
        })
    }

    fn put_failover(&self, text: String, expected: i64) -> BoxFuture<'_, Result<i64, DcsError>> {
        Box::pin(async move {
            self.hang_if_wedged().await;
            self.called(format!("put_failover {expected} {text}"));
            self.write.lock().unwrap().clone()
        })
    }

    fn failsafe_asked(&self, ask: FailsafeAsk) -> BoxFuture<'_, FailsafeAnswer> {
        Box::pin(async move {
            self.hang_if_wedged().await;
            let FailsafeAsk {
                name,
                api_url,
                slots,
                ttl,
                ..
            } = ask;
            self.called(format!("failsafe {name} {api_url} {slots:?} {ttl:?}"));
            self.failsafe.lock().unwrap().clone()
        })
    }

    fn ask_status(&self, _api_url: String) -> BoxFuture<'_, Option<PeerStatus>> {
        Box::pin(async move { self.peer.lock().unwrap().clone() })
    }
}

pub(crate) fn raw(value: &str, revision: i64) -> RawKey {
    RawKey {
        value: value.to_owned(),
        create_revision: revision,
        mod_revision: revision,
        lease: 0,
    }
}

/// Three members, led by `leader`.
pub(crate) fn cluster(leader: Option<&str>, extra: &[(&str, &str)]) -> Snapshot {
    let mut keys = BTreeMap::new();
    let mut view = ClusterView {
        revision: Revision(100),
        ..ClusterView::default()
    };
    for (at, name) in ["n1", "n2", "n3"].iter().enumerate() {
        let port = 8001 + at;
        let role = if Some(*name) == leader {
            "primary"
        } else {
            "replica"
        };
        let record = serde_json::json!({
            "conn_url": format!("postgres://127.0.0.1:{}/postgres", 5001 + at),
            "api_url": format!("http://127.0.0.1:{port}/patroni"),
            "state": "running", "role": role, "version": "4.1.5", "tags": {"clonefrom": true},
            "xlog_location": 67_395_656 + at, "timeline": 5,
            "replication_state": "streaming", "receive_lsn": 67_395_656, "replay_lsn": 67_395_000,
        });
        keys.insert(format!("members/{name}"), raw(&record.to_string(), 10));
        let member = Member {
            api_url: format!("http://127.0.0.1:{port}/patroni"),
            state: "running".to_owned(),
            role: role.to_owned(),
            ..Member::default()
        };
        view.members.insert(NodeName::from(*name), Arc::new(member));
    }
    if let Some(leader) = leader {
        keys.insert("leader".to_owned(), raw(leader, 50));
        view.leader = Some(LeaderKey {
            name: NodeName::from(leader),
            lease: Some(LeaseId(7)),
            created: Revision(50),
        });
    }
    keys.insert(
        "config".to_owned(),
        raw(
            r#"{"ttl":5,"postgresql":{"parameters":{"max_connections":100}}}"#,
            42,
        ),
    );
    keys.insert("status".to_owned(), raw(r#"{"optime":67395656}"#, 60));
    keys.insert(
        "history".to_owned(),
        raw(
            r#"[[1,67108864,"no recovery target specified","2026-11-20T09:00:00+00:00","n1"]]"#,
            60,
        ),
    );
    view.status = Some(Arc::new(Status {
        optime: Lsn(67_395_656),
        ..Status::default()
    }));
    for (key, value) in extra {
        keys.insert((*key).to_owned(), raw(value, 70));
        if *key == "failover" {
            let wish: Value = serde_json::from_str(value).unwrap();
            let name = |key: &str| wish.get(key).and_then(Value::as_str).map(NodeName::from);
            if wish != serde_json::json!({}) {
                view.failover = Some(FailoverKey {
                    leader: name("leader"),
                    candidate: name("member"),
                    due: Due::Now,
                    revision: Revision(70),
                });
            }
        }
    }
    Snapshot {
        raw: RawCluster {
            keys,
            revision: 100,
            term: 2,
        },
        view,
    }
}

pub(crate) fn seen(snapshot: &Snapshot) -> Option<Seen<Arc<ClusterStatus>>> {
    Some(Seen {
        value: Arc::new(ClusterStatus::new(snapshot.clone())),
        at: NOW,
    })
}

pub(crate) fn server(role: ServerRole) -> PostgresStatus {
    let primary = matches!(role, ServerRole::Primary { .. });
    let sender = WalSender {
        usename: "replicator".to_owned(),
        application_name: "n2".to_owned(),
        client_addr: Some("10.0.0.2".to_owned()),
        state: "streaming".to_owned(),
        sync_state: "async".to_owned(),
        sync_priority: 0,
    };
    PostgresStatus {
        at: NOW,
        view: PostgresView {
            data: DataDir::Empty,
            process: Process::Running(Server {
                role,
                timeline: Timeline(5),
                system_id: SystemId(7_710_181_664_234_940_600),
                version: 150_018,
                guarded: true,
                standbys: Default::default(),
                synchronous: Default::default(),
                managed: false,
                gated: false,
                slots: BTreeMap::new(),
                history: Vec::new(),
                upstream: None,
                slot: None,
                heard_of: None,
            }),
        },
        detail: ServerDetail {
            postmaster_start_time: Some(Duration::from_micros(1_795_166_560_696_997)),
            walsenders: if primary { vec![sender] } else { Vec::new() },
            ..ServerDetail::default()
        },
    }
}

pub(crate) fn replica_role() -> ServerRole {
    ServerRole::Replica {
        received: Some(Lsn(67_395_656)),
        replayed: Lsn(67_395_000),
        streaming: true,
    }
}

pub(crate) fn timing() -> Timing {
    Timing {
        ttl: Duration::from_secs(5),
        loop_wait: Duration::from_secs(1),
        primary_start_timeout: Duration::from_secs(300),
        maximum_lag_on_failover: 1 << 20,
    }
}

/// A primary called n1 with a valid lock.
pub(crate) fn primary() -> NodeStatus {
    let mut status = NodeStatus::starting("demo", "n1", timing(), NOW);
    status.cluster = seen(&cluster(Some("n1"), &[]));
    status.postgres = Some(Arc::new(server(ServerRole::Primary {
        written: Lsn(67_395_656),
    })));
    status.state = "running";
    status.role = "primary";
    status.lock_until = Some(NOW.plus(Duration::from_secs(4)));
    status.can_take_lock = true;
    status.dcs_last_seen = Some(WALL);
    status.last_rule = "R10";
    status.decisions = 17;
    status
}

/// A streaming replica called n1 of a cluster led by n2.
pub(crate) fn replica() -> NodeStatus {
    NodeStatus {
        cluster: seen(&cluster(Some("n2"), &[])),
        postgres: Some(Arc::new(server(replica_role()))),
        role: "replica",
        lock_until: None,
        ..primary()
    }
}

pub(crate) fn tags(published: Value) -> Arc<Tags> {
    let published = published.as_object().unwrap().clone();
    Arc::new(Tags {
        noloadbalance: published.get("noloadbalance") == Some(&Value::Bool(true)),
        failover_priority: 1,
        published,
        ..Tags::default()
    })
}

pub(crate) fn settings() -> RestApi {
    let local = HostPort {
        host: "127.0.0.1".to_owned(),
        port: 0,
    };
    RestApi {
        listen: local.clone(),
        connect_address: local,
        authentication: None,
        certfile: None,
        keyfile: None,
        cafile: None,
        verify_client: VerifyClient::None,
        allowlist: Vec::new(),
        allowlist_include_members: false,
        http_extra_headers: BTreeMap::new(),
        https_extra_headers: BTreeMap::new(),
        server_tokens: "Original".to_owned(),
        request_queue_size: 5,
    }
}

pub(crate) struct Node {
    pub(crate) address: SocketAddr,
    pub(crate) fake: Arc<Fake>,
    pub(crate) statuses: Publisher<Arc<NodeStatus>>,
    pub(crate) rest: Rest,
    task: tokio::task::JoinHandle<()>,
}

impl Drop for Node {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Node {
    pub(crate) async fn start(status: NodeStatus) -> Self {
        Self::with(status, settings(), Limits::default()).await
    }

    pub(crate) async fn with(status: NodeStatus, settings: RestApi, limits: Limits) -> Self {
        let snapshot = status
            .cluster
            .as_ref()
            .map(|seen| Snapshot::clone(&seen.value.snapshot));
        let fake = Fake::new(snapshot.unwrap_or_default());
        let (statuses, receiver) = surus::published::channel(Arc::new(status));
        let listener: TcpListener = Tcp::bind(&settings.listen.host, settings.listen.port, 256)
            .await
            .unwrap();
        let address = listener.local_addr().unwrap();
        let rest = Rest::new(fake.clone(), receiver, settings, limits).unwrap();
        let serving = rest.clone();
        let task = tokio::spawn(async move { serving.serve(Box::new(listener)).await });
        Self {
            address,
            fake,
            statuses,
            rest,
            task,
        }
    }

    pub(crate) fn publish(&self, status: NodeStatus) {
        self.statuses.publish(Arc::new(status));
    }

    pub(crate) fn set_cluster(&self, snapshot: Snapshot) {
        *self.fake.snapshot.lock().unwrap() = Ok(snapshot);
    }

    pub(crate) async fn get(&self, path: &str) -> HttpReply {
        self.send("GET", path, None).await
    }

    pub(crate) async fn post(&self, path: &str, body: &str) -> HttpReply {
        self.send("POST", path, Some(body)).await
    }

    pub(crate) async fn send(&self, method: &str, path: &str, body: Option<&str>) -> HttpReply {
        self.send_with(method, path, body, "").await
    }

    pub(crate) async fn send_with(
        &self,
        method: &str,
        path: &str,
        body: Option<&str>,
        headers: &str,
    ) -> HttpReply {
        let length = body.map_or(String::new(), |body| {
            format!("Content-Length: {}\r\n", body.len())
        });
        let request = format!(
            "{method} {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n{length}{headers}\r\n{}",
            body.unwrap_or_default()
        );
        self.raw(request.as_bytes()).await
    }

    /// Sends bytes and reads to the end.
    pub(crate) async fn raw(&self, bytes: &[u8]) -> HttpReply {
        let mut stream = TcpStream::connect(self.address).await.unwrap();
        // The server may refuse and close before everything is sent.
        let _ = stream.write_all(bytes).await;
        let mut reply = Vec::new();
        let _ = tokio::time::timeout(Duration::from_secs(20), stream.read_to_end(&mut reply))
            .await
            .expect("the server answers or hangs up");
        HttpReply::parse(&reply)
    }
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct HttpReply {
    pub(crate) status: u16,
    pub(crate) head: String,
    pub(crate) body: String,
}

impl HttpReply {
    pub(crate) fn parse(bytes: &[u8]) -> Self {
        let text = String::from_utf8_lossy(bytes);
        let (head, body) = text.split_once("\r\n\r\n").unwrap_or((&text, ""));
        let status = head
            .split(' ')
            .nth(1)
            .and_then(|status| status.parse().ok())
            .unwrap_or(0);
        Self {
            status,
            head: head.to_owned(),
            body: body.to_owned(),
        }
    }

    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.head.lines().skip(1).find_map(|line| {
            let (key, value) = line.split_once(": ")?;
            key.eq_ignore_ascii_case(name).then_some(value)
        })
    }

    pub(crate) fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap_or_else(|error| panic!("{error}: {}", self.body))
    }
}
